"""Registered models asked from the shell: a bad file or a wrong word costs nobody else his answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.cli.app import main
from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError
from pipeline.registration.lookup import find_version
from pipeline.training.tracking import ensure_tracking_uri

CLASSIFIER, CLIP = "models:/asked@champion", "models:/asked-clip@champion"


@pytest.fixture(scope="module")
def registered(colours: Any) -> Any:
    """The colours, with a classifier and a dual encoder in their registry."""
    colours.register(colours.classifier(), classifier_name="asked")
    colours.register(colours.clip(), clip_name="asked-clip", gate={"beat_floor": False})
    return colours


@pytest.fixture
def folder(registered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures, and files that are none."""
    monkeypatch.setenv("TUTELAGE_STORE", registered.store.storage.url)
    for number, label in enumerate(("red", "green", "blue")):
        (tmp_path / f"{number}.png").write_bytes(registered.picture(label, 4000))
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(registered.picture("red", 1)[:150])
    (tmp_path / "folder").mkdir()
    return tmp_path


def names(folder: Path, *files: str) -> list[str]:
    return [str(folder / file) for file in files]


def test_files_that_are_no_pictures_are_named_and_the_others_are_answered(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = ("0.png", "text.png", "1.png", "nowhere.png", "empty.png", "2.png", "folder", "cut.png")
    assert main(["predict", "--json", CLASSIFIER, *names(folder, *files)]) == 1
    out, err = capfd.readouterr()
    rows = json.loads(out)
    assert [Path(row["image"]).name for row in rows] == list(files)
    assert [row.get("label") for row in rows] == ["red", None, "green", None, None, "blue", None, None]
    assert {Path(row["image"]).name for row in rows if "error" in row} == set(files) - {"0.png", "1.png", "2.png"}
    lines = err.splitlines()
    assert [Path(line.removeprefix("tutelage: ").partition(": ")[0]).name for line in lines] == [
        file for file in files if not file[0].isdigit()
    ]
    for line, reason in zip(
        lines, ("cannot be decoded", "No such file", "empty", "a folder", "cannot be decoded"), strict=True
    ):
        assert reason in line


def test_the_table_keeps_the_good_answers_too(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", CLASSIFIER, *names(folder, "text.png", "2.png")]) == 1
    out, err = capfd.readouterr()
    assert "blue" in out
    assert "text.png" not in out
    assert err.count("\n") == 1


def test_nothing_that_can_be_read_is_wrong_input(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", CLASSIFIER, *names(folder, "nowhere.png", "empty.png")]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_a_folder_and_a_pattern_stand_for_their_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    photos = folder / "folder"
    (photos / "deep").mkdir()
    for name, number in (("z.png", 0), ("deep/no-extension", 1), ("deep/a.png", 2)):
        (photos / name).write_bytes((folder / f"{number}.png").read_bytes())
    (photos / "labels.csv").write_text("z.png,red")
    (photos / "damaged.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(folder)

    def asked(*arguments: str) -> tuple[list[tuple[str, str | None]], str]:
        code = main(["predict", "--json", CLASSIFIER, *arguments])
        out, err = capfd.readouterr()
        rows = json.loads(out)
        assert code == (1 if any("error" in row for row in rows) else 0)
        return [(row["image"], row.get("label")) for row in rows], err

    below = [("folder/damaged.jpg", None), ("folder/deep/a.png", "blue"), ("folder/deep/no-extension", "green")]
    rows, err = asked("folder")
    assert rows == [*below, ("folder/z.png", "red")]
    assert err.startswith("tutelage: folder/damaged.jpg: cannot be decoded")
    assert asked("folder/**/*.png", "folder/z.png") == ([("folder/deep/a.png", "blue"), ("folder/z.png", "red")], "")
    assert asked(f"{folder}/[0-1].png") == ([(f"{folder}/0.png", "red"), (f"{folder}/1.png", "green")], "")
    rows, err = asked("*.jpg", "folder/deep/*")
    assert rows == [("*.jpg", None), *below[1:]]
    assert err == "tutelage: *.jpg: matches no image files\n"
    rows, err = asked("~nobody-of-this-name/*.png", "folder/z.png")
    assert rows[1:] == [("folder/z.png", "red")]
    assert err == "tutelage: ~nobody-of-this-name/*.png: matches no image files\n"
    (photos / "[old]").mkdir()
    (photos / "[old]" / "b.png").write_bytes((folder / "1.png").read_bytes())
    monkeypatch.chdir(photos / "[old]")
    assert asked("*.png") == ([("b.png", "green")], "")
    monkeypatch.chdir(folder)
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").touch()
    assert main(["predict", CLASSIFIER, "texts"]) == 2
    assert "texts: a folder without images (1 .txt)" in capfd.readouterr().err


def test_more_images_than_are_read_at_once(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    colours = ("red", "green", "blue")
    for number in range(150):
        (folder / "folder" / f"{number:03}.png").write_bytes((folder / f"{number % 3}.png").read_bytes())
    (folder / "folder" / "070.png").write_bytes(b"no picture")
    assert main(["predict", "--json", CLASSIFIER, str(folder / "folder")]) == 1
    labels = [row.get("label") for row in json.loads(capfd.readouterr().out)]
    assert labels == [None if number == 70 else colours[number % 3] for number in range(150)]


def test_a_model_is_named_by_its_alias_or_its_version(registered: Any, tmp_path: Path) -> None:
    registry, version = find_version(registered.store, CLASSIFIER)
    assert version.uri == "models:/asked/1"
    assert find_version(registered.store, version.uri)[1] == version
    assert sorted(registry.fetch(version, tmp_path / "fetched").labels) == ["blue", "green", "red"]
    empty = ArtifactStore.open(str(tmp_path / "store"))
    with pytest.raises(InputError, match="write models:/NAME@ALIAS"):
        find_version(empty, "models:/asked")
    # Nothing was created to look there for a name that is none.
    assert not (tmp_path / "store" / "services").exists()
    with pytest.raises(InputError, match="models:/asked@challenger: cannot be looked up"):
        find_version(registered.store, "models:/asked@challenger")


def test_prompts_are_for_models_that_rank_them(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["--prompt", "a red square", "--prompt", "a blue square"]
    assert main(["zero-shot", CLASSIFIER, *names(folder, "0.png"), *asked]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "a classifier, which ranks no prompts" in err
    assert main(["zero-shot", CLIP, *names(folder, "0.png", "text.png"), *asked, "--json"]) == 1
    row, bad = json.loads(capfd.readouterr().out)
    assert {entry["label"] for entry in row["ranking"]} == {"a red square", "a blue square"}
    assert "cannot be decoded" in bad["error"]
    for prompts in (["a"], ["a", "a"], ["a", " "]):
        options = [part for prompt in prompts for part in ("--prompt", prompt)]
        assert main(["zero-shot", CLIP, *names(folder, "0.png"), *options]) == 2


@pytest.mark.parametrize(
    ("uri", "params", "says"),
    [
        (CLASSIFIER, {"prompts": ["a"]}, "unknown params prompts: this is a classifier"),
        (CLASSIFIER, {"top_k": 3}, "unknown params top_k"),
        (CLIP, {"promts": ["a"]}, "unknown params promts: this dual encoder takes only"),
        (CLIP, {"prompts": ["a"], "temperature": 2}, "unknown params temperature"),
        (CLIP, {"prompts": "a red square"}, "prompts"),
        (CLIP, {"prompts": None}, "prompts"),
        (CLIP, {"prompts": ["a", 3]}, "prompts"),
        (CLIP, {"prompts": ["a", " "]}, "prompts: number 2 of 2 is empty"),
    ],
)
def test_a_loaded_model_refuses_parameters_it_would_ignore(
    registered: Any, folder: Path, uri: str, params: dict[str, Any], says: str
) -> None:
    mlflow.set_tracking_uri(ensure_tracking_uri(registered.store))
    model = mlflow.pyfunc.load_model(uri, suppress_warnings=True)
    image = (folder / "0.png").read_bytes()
    with pytest.raises(Exception, match=says):
        model.predict([image], params=params)
    with pytest.raises(ValueError, match="params"):
        model.unwrap_python_model().predict([image], params)
    assert len(model.predict([image], params={})) == len(model.predict([image])) == 1


@pytest.mark.heavy
def test_the_command_writes_nothing_else_to_stderr(folder: Path) -> None:
    command = [Path(sys.executable).with_name("tutelage"), "predict", CLASSIFIER, folder / "0.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"})
    assert done.stderr == ""
    assert "red" in done.stdout
