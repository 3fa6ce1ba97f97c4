"""`tutelage explain` on an exported model: a PNG an image, or one line and nothing written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from flows.cli import main
from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config
from pipeline.exported_model import ExportedModel, Preprocessing
from pipeline.stage import Workspace, run_stage

KWARGS: dict[str, Any] = {"img_size": 48, "widths": [8, 8], "depths": [1, 1], "num_classes": 3, "in_chans": 3}


class Untrained:
    """A small ResNet as it begins."""

    name: ClassVar[str] = "train-teacher"
    version: ClassVar[int] = 1

    def run(self, config: Config, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        torch.manual_seed(0)
        ExportedModel.write(
            work.output / "model", create_model("resnet_small", **KWARGS), kind="classifier",
            architecture="resnet_small", kwargs=KWARGS, preprocessing=Preprocessing(48, 3, (0.5,) * 3, (0.25,) * 3),
            labels=("circle", "square", "star"),
        )  # fmt: skip
        return {}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.setenv("TUTELAGE_STORE", str(tmp_path / "store"))
    return run_stage(Untrained(), Config(), {}, store=ArtifactStore.open(str(tmp_path / "store")))


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = []
    for place, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "cat.jpg"
        pixels = np.random.default_rng(place).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        paths.append(str(path))
    return paths


def test_each_image_gets_its_own_png_and_its_path_is_told(
    model: Artifact, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    assert main(["explain", model.uri[:24], *images, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = [out / "cat.grad-cam.png", out / "cat-2.grad-cam.png"]
    assert [line.split("  ")[0] for line in lines] == [str(path) for path in wanted]
    assert sorted(out.iterdir()) == sorted(wanted)
    shown = [np.asarray(Image.open(path)) for path in wanted]
    assert min(picture.shape[1] for picture in shown) > 2 * 320
    assert not np.array_equal(shown[0], shown[1])


def test_a_folder_names_a_model_as_well_as_its_artifact(
    model: Artifact, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for uri in (model.uri, str(model.folder("model")), str(model.folder("model").parent)):
        assert main(["explain", uri, images[0], "--out", str(tmp_path), "--class", "star", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1] == answers[2]
    assert set(answers[0][0]) == {"image", "explanation", "method", "label", "score"}


@pytest.mark.parametrize(
    ("uri", "options", "says"),
    [
        ("", ["--method", "rollout"], "rollout does not fit resnet_small; use grad-cam or occlusion"),
        ("", ["--prompt", "a cat"], "takes no --prompt"),
        ("", ["--class", "stars"], "did you mean star"),
        ("", ["broken.png"], "broken.png: cannot be decoded (not an image"),
        ("", ["nowhere.png"], "nowhere.png: cannot be read"),
        ("train-teacher/000", [], "unknown artifact"),
        ("resnet50", [], "resnet50: no model; give models:/NAME@ALIAS"),
        ("models:/x", [], "write models:/NAME@ALIAS or models:/NAME/VERSION"),
        (".", [], "no exported model"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(
    uri: str,
    options: list[str],
    says: str,
    model: Artifact,
    images: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("broken.png").write_bytes(b"not a picture")
    out = tmp_path / "out"
    assert main(["explain", uri or model.uri, *images, *options, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(
    model: Artifact, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("")
    assert main(["explain", model.uri, *images, "--out", str(tmp_path / "out")]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


@pytest.mark.servers
def test_a_registered_model_is_explained_from_the_registry(
    model: Artifact,
    images: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.registration.mlflow_registry import Registry

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry = Registry.open(ArtifactStore.open())
    registry.promote(registry.register("shapes", ExportedModel.open(model), tags={}, metrics={}, description=""))
    capsys.readouterr()
    answers = []
    for uri in ("models:/shapes@champion", "models:/shapes/1", model.uri):
        assert main(["explain", uri, images[0], "--out", str(tmp_path / "out"), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1] == answers[2]
    assert main(["explain", "models:/shapes@challenger", images[0], "--out", str(tmp_path / "none")]) == 2
    assert "cannot be looked up" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
