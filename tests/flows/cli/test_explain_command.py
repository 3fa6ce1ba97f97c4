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

from flows.cli.app import main
from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config
from pipeline.explain.data_set_channels import channel_panels
from pipeline.explain.deconvnet import activations
from pipeline.exported_model import ExportedModel
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.reader import SampleReader
from pipeline.preprocessing import Preprocessing
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.image_folder import ImageFolderConfig
from pipeline.sharding.stage import ShardDataset
from pipeline.sharding.writing.split_config import SplitConfig
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
    assert main(["explain", model.name[:24], *images, "--out", str(out)]) == 0
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
    for uri in (model.name, str(model.folder("model")), str(model.folder("model").parent)):
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
    out = tmp_path / "out"
    assert main(["explain", uri or model.name, *images, *options, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not out.exists()


def test_a_bad_image_is_named_and_the_others_are_drawn(
    model: Artifact, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, out = tmp_path / "broken.png", tmp_path / "out"
    broken.write_bytes(b"not a picture")
    asked = ["explain", model.name, images[0], str(broken), str(tmp_path / "nowhere.png"), images[1], "--out", str(out)]
    assert main([*asked, "--json"]) == 1
    printed, err = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == ["cat-2.grad-cam.png", "cat.grad-cam.png"]
    rows = json.loads(printed)
    assert [row["image"] for row in rows] == asked[2:6]
    assert ["explanation" in row for row in rows] == [True, False, False, True]
    assert [row["error"].split(" (")[0] for row in rows[1:3]] == ["cannot be decoded", "cannot be read"]
    assert [line.split(": ")[1] for line in err.splitlines()] == asked[3:5]
    assert main(["explain", model.name, str(broken), "--out", str(tmp_path / "none")]) == 2
    assert f"{broken}: cannot be decoded (not an image" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_folder_stands_for_the_images_in_it(
    model: Artifact, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one" / "notes.txt").write_text("no image")
    assert main(["explain", model.name, str(tmp_path / "one"), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert [row["image"] for row in json.loads(capsys.readouterr().out)] == images[:1]


def test_a_file_in_the_place_of_the_folder_is_refused(
    model: Artifact, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("")
    assert main(["explain", model.name, *images, "--out", str(tmp_path / "out")]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


@pytest.fixture
def shards(model: Artifact, pictures: Path) -> Artifact:
    """48 pictures in the model's store."""
    config = ShardingConfig(source=ImageFolderConfig(folder=pictures), split=SplitConfig(val_share=0.25))
    return run_stage(ShardDataset(), config.resolved(), {}, store=ArtifactStore.open())


@pytest.fixture
def lenet(tmp_path: Path) -> ExportedModel:
    torch.manual_seed(0)
    kwargs: dict[str, Any] = {"num_classes": 2, "in_chans": 3, "img_size": 32}
    folder = tmp_path / "lenet"
    ExportedModel.write(
        folder, create_model("lenet5", **kwargs), kind="classifier", architecture="lenet5", kwargs=kwargs,
        preprocessing=Preprocessing(32, 3, (0.5,) * 3, (0.25,) * 3), labels=("blue", "red"),
    )  # fmt: skip
    return ExportedModel.read(folder)


def test_a_data_set_shows_what_excites_the_channels_most(
    shards: Artifact, lenet: ExportedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ["explain", str(tmp_path / "lenet"), "--data", shards.name[:24], "--out", str(out), "--json"]
    assert main([*asked, "--layer", "3", "--channels", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["layer"] == 3
    four = np.asarray(Image.open(out / "lenet5.top-activations.png"))
    assert main([*asked, "--layer", "3", "--channels", "3", "--split", "val"]) == 0
    three = np.asarray(Image.open(out / "lenet5.top-activations.png"))
    assert four.shape[0] > three.shape[0], "four pairs take two rows"


def test_the_channels_shown_are_those_with_the_strongest_best_answers(shards: Artifact, lenet: ExportedModel) -> None:
    index = SampleIndex.open(shards)
    layer, panels = channel_panels(lenet, SampleReader(shards, index), index, index.rows(), channels=2)
    images = torch.cat([batch.images for batch in evaluation_batches(
        SampleReader(shards, index), index, index.rows(), image_size=32, batch_size=48)])  # fmt: skip
    features = lenet.build().features
    maps = activations(features, lenet.preprocessing.normalise(images), layer)
    best = maps.amax(dim=(2, 3)).topk(9, dim=0).values
    first, second = best.mean(dim=0).topk(2).indices.tolist()
    words = [panel.title.split("   ") for panel in panels[::2]]
    assert [title for title, _ in words] == [f"channel {first}", f"channel {second}"]
    assert words[0][1] == f"{best[8, first]:.2g} to {best[0, first]:.2g}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--split", "trial"], "unknown split"),
        (["--prompt", "a cat"], "takes no images, --prompt"),
        (["--method", "grad-cam"], "takes no images"),
        (["--layer", "99"], "99"),
        ([], "does not fit resnet_small"),
    ],
)
def test_a_data_set_is_refused_in_one_line(
    options: list[str],
    says: str,
    shards: Artifact,
    lenet: ExportedModel,
    model: Artifact,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = str(tmp_path / "lenet") if options else model.name
    assert main(["explain", uri, "--data", shards.name, "--out", str(tmp_path / "out"), *options]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_to_look_at_is_said(model: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", model.name]) == 2
    assert "give image files, or --data" in capsys.readouterr().err
    assert main(["explain", model.name, "--method", "top-activations", "x.png"]) == 2
    assert "name them by --data" in capsys.readouterr().err


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
    for uri in ("models:/shapes@champion", "models:/shapes/1", model.name):
        assert main(["explain", uri, images[0], "--out", str(tmp_path / "out"), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1] == answers[2]
    assert main(["explain", "models:/shapes@challenger", images[0], "--out", str(tmp_path / "none")]) == 2
    assert "cannot be looked up" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
