"""`tutelage evaluate` on folders, tables and shards: what it measures, prints and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flows.cli.app import main
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.stage import run_stage
from tests.one_answer import AnswerConfig, OneAnswer


def classifier(answer: str) -> Artifact:
    return run_stage(OneAnswer(), AnswerConfig(answer=answer), {}, store=ArtifactStore.open())


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six red and four blue pictures, in a folder without the label green."""
    monkeypatch.setenv("TUTELAGE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "photos", red=6, blue=4)
    return tmp_path / "photos"


def paint(folder: Path, **counts: int) -> None:
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            colour = {"red": (200, number, 0), "blue": (0, number, 200)}.get(label, (number, 200, 0))
            Image.new("RGB", (16, 16), colour).save(folder / label / f"{number}.png")


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["evaluate", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_all_images_of_a_folder_are_measured_by_the_names_of_their_labels(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "red" / "broken.png").write_bytes((photos / "red" / "1.png").read_bytes()[:60])
    model = classifier("red")
    assert main(["evaluate", model.name[:20], "--data", "photos"]) == 0
    printed, err = capsys.readouterr()
    assert printed.splitlines()[0].strip() == f"{model.name[:20]} on photos: 10 images"
    assert "60.0%  (95% interval 31.3% to 83.2%)" in printed
    assert "blue: 0 of 4 right (0.0%)" in printed
    assert "4 of 4 images (100.0%) of blue predicted as red" in printed
    assert "blue/0.png: blue, predicted red (" in printed
    assert "red/broken.png: left out, cannot be read (" in err
    found = answer(capsys, model.name, "--data", "photos")
    assert found["cached"]
    assert (found["images"], found["split"], found["left_out"]["images"]) == (10, "all", 0)
    assert [row["name"] for row in found["unreadable"]] == ["red/broken.png"]
    assert found["classes"][0] == {"label": "blue", "right": 0, "images": 4, "accuracy": 0.0}
    assert found["confusions"] == [{"true": "blue", "predicted": "red", "count": 4, "of": 4}]
    assert sorted(mistake["image"] for mistake in found["mistakes"]) == [f"blue/{n}.png" for n in range(4)]
    assert found["evaluation"] in ArtifactStore.open().names("evaluate")


def test_label_unknown_to_the_model_is_refused_before_work_or_left_out(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paint(photos, grean=2)
    model = classifier("red")
    assert main(["evaluate", model.name, "--data", "photos"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "photos: the label 'grean' (2 images) is not one of the 3 labels" in line
    assert "did you mean green" in line
    assert list(ArtifactStore.open().names()) == [model.name]
    found = answer(capsys, model.name, "--data", "photos", "--leave-out-unknown")
    assert found["left_out"] == {"images": 2, "labels": 1, "of": {"grean": 2}}
    assert (found["images"], found["metrics"]["accuracy/top1"]) == (10, 0.6)


def test_exported_folder_table_and_split_folders_are_data_and_models_too(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = classifier("blue")
    shutil.copytree(model.folder("model/"), tmp_path / "exported")
    table = ["path,label", *(f"photos/{label}/{n}.png,{label}" for label, n in (("red", 0), ("blue", 1), ("blue", 2)))]
    (tmp_path / "table.csv").write_text("\n".join(table) + "\n")
    found = answer(capsys, "exported", "--data", "table.csv")
    assert (found["images"], found["model"].partition("/")[0]) == (3, "exported-model")
    assert found["metrics"]["accuracy/top1"] == pytest.approx(2 / 3)
    paint(tmp_path / "sets" / "train", red=3, blue=2)
    paint(tmp_path / "sets" / "test", red=1, green=1)
    # The red test image is also in train; the green one is the only image of its class.
    assert answer(capsys, "exported", "--data", "sets")["images"] == 6
    found = answer(capsys, str(model.folder("model/")), "--data", "sets", "--split", "test")
    assert (found["images"], found["metrics"]["accuracy/top1"], found["model"]) == (2, 0.0, model.name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "nowhere"], "--data nowhere: no such artifact or folder"),
        (["--data", "photos", "--split", "dev"], "unknown split 'dev'"),
        (["--data", "photos", "--split", "test"], "no image of photos is in this split (train 10)"),
        (["--data", "photos/red"], "holds no sub-folder"),
        (["--data", "shard-dataset/0123"], "unknown artifact"),
        ([], "--data"),
    ],
)
def test_a_wrong_argument_is_one_line(
    arguments: list[str], says: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", classifier("red").name, *arguments]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert says in line


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("train-teacher/000", "unknown artifact"),
        ("resnet50", "no model; give models:/NAME@ALIAS"),
        ("photos", "no exported model"),
        ("models:/x", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
    ],
)
def test_a_wrong_model_is_one_line(model: str, says: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", model, "--data", "photos"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_an_interruption_is_one_line(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.cli.evaluate_command.model_artifact", interrupted)
    assert main(["evaluate", "resnet50", "--data", "photos"]) == 130
    assert capsys.readouterr().err == "tutelage: interrupted\n"
