from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import model_defs.registry
from model_defs import ModelInfo, create_model, register_model
from pipeline.artifacts import ArtifactStore
from pipeline.errors import DamagedError, InputError
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing

GREY = Preprocessing(image_size=28, channels=1, mean=(0.25,), std=(0.5,))
KWARGS = {"num_classes": 4, "in_chans": 1, "img_size": 28}
LABELS = ("bag", "boot", "coat", "été")


def export(folder: Path, model: nn.Module | Mapping[str, Tensor], **changes: Any) -> ExportedModel:
    given = {"kind": "classifier", "architecture": "lenet5", "kwargs": KWARGS, "preprocessing": GREY, "labels": LABELS}
    return ExportedModel.write(folder, model, **{**given, **changes})


def test_what_is_opened_is_what_was_written(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path))
    model = create_model("lenet5", **KWARGS).eval()
    folder = store.local / "aside"
    export(folder / "model", model)
    artifact = store.commit("train-teacher", "0a", folder, config={}, inputs={}, summary={}, seconds=0.0, origin={})
    opened = ExportedModel.open(artifact)
    assert (opened.kind, opened.architecture, opened.kwargs) == ("classifier", "lenet5", KWARGS)
    assert (opened.preprocessing, opened.labels, opened.templates) == (GREY, LABELS, ())
    images = torch.randn(2, 1, 28, 28)
    built = opened.build()
    assert not built.training
    assert torch.equal(built(images), model(images))


def test_an_artifact_without_a_model_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path))
    folder = store.local / "aside"
    folder.mkdir(parents=True)
    artifact = store.commit("evaluate", "0a", folder, config={}, inputs={}, summary={}, seconds=0.0, origin={})
    with pytest.raises(InputError, match="evaluate/0a: contains no model"):
        ExportedModel.open(artifact)


def test_weights_of_another_architecture_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other shape head.weight \(5, 84\) for \(4, 84\)"):
        export(tmp_path, create_model("lenet5", **{**KWARGS, "num_classes": 5}))
    assert list(tmp_path.iterdir()) == []


def test_wrapped_or_incomplete_state_is_refused(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in create_model("lenet5", **KWARGS).state_dict().items()}
    with pytest.raises(InputError, match=r"missing convolutions.*unknown module\.convolutions"):
        export(tmp_path, state)


def test_tied_weights_are_stored_once_and_come_back_under_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Linear(3, 3)
            self.outside = nn.Linear(3, 3)
            self.outside.weight = self.inside.weight

    monkeypatch.setattr(model_defs.registry, "_models", dict(model_defs.registry._models))
    register_model(ModelInfo("tied", "text", 2026, "none"), Tied)
    model = Tied()
    exported = export(tmp_path, model, architecture="tied", kwargs={})
    assert sorted(load_file(tmp_path / "model.safetensors")) == ["inside.bias", "inside.weight", "outside.bias"]
    built: Any = exported.build()
    assert torch.equal(built.outside.weight, model.inside.weight)


def test_views_of_one_buffer_and_channels_last_are_stored_whole(tmp_path: Path) -> None:
    model = create_model("lenet5", **KWARGS)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flat = torch.cat([tensor.flatten() for tensor in state.values()])
    views, start = {}, 0
    for name, tensor in state.items():
        views[name] = flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    for given in (views, model.to(memory_format=torch.channels_last)):
        read = export(tmp_path, given).weights()
        assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    model = create_model("lenet5", **KWARGS)
    folders = [export(tmp_path / name, model).folder for name in "ab"]
    for name in ("model.safetensors", "architecture.json", "preprocessing.json", "labels.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_damage_is_told_with_its_place(tmp_path: Path) -> None:
    exported = export(tmp_path, create_model("lenet5", **KWARGS))
    weights = exported.folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(DamagedError, match=r"model\.safetensors: cannot be read as safetensors"):
        exported.build()
    state = load_file_bytes(whole, tmp_path)
    del state["head.bias"]
    save_file(state, weights)
    with pytest.raises(DamagedError, match=r"does not fit lenet5: missing head\.bias"):
        exported.build()
    (exported.folder / "labels.json").unlink()
    with pytest.raises(DamagedError, match=r"not a complete exported model.*labels\.json"):
        ExportedModel.read(exported.folder)


def load_file_bytes(data: bytes, folder: Path) -> dict[str, Tensor]:
    (folder / "whole.safetensors").write_bytes(data)
    return load_file(folder / "whole.safetensors")


def test_an_architecture_that_no_longer_exists_is_told(tmp_path: Path) -> None:
    exported = export(tmp_path, create_model("lenet5", **KWARGS))
    place = exported.folder / "architecture.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "name": "lenet6"}))
    with pytest.raises(InputError, match="unknown model 'lenet6'; did you mean lenet5"):
        ExportedModel.read(exported.folder).build()


def test_normalising_is_the_textbook_formula() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    rgb = Preprocessing(4, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    normalised = rgb.normalise(images)
    for channel in range(3):
        expected = (images[:, channel] / 255 - rgb.mean[channel]) / rgb.std[channel]
        torch.testing.assert_close(normalised[:, channel], expected)


def test_preprocessing_with_missing_channels_is_refused() -> None:
    with pytest.raises(InputError, match="1 means and 1 deviations for 3 channels"):
        Preprocessing(32, 3, (0.5,), (0.5,))


@pytest.mark.parametrize("std", [float("nan"), float("inf"), 0.0, -0.5])
def test_a_deviation_that_divides_by_nothing_is_refused(std: float) -> None:
    with pytest.raises(InputError, match="preprocessing: "):
        Preprocessing(32, 3, (0.5,) * 3, (0.25, std, 0.25))


def test_a_model_that_stores_one_number_for_all_channels_loads_as_what_it_was(tmp_path: Path) -> None:
    rgb = Preprocessing(28, 3, (0.5,) * 3, (0.25,) * 3)
    exported = export(tmp_path, create_model("lenet5", **KWARGS), preprocessing=rgb)
    place = exported.folder / "preprocessing.json"
    stored = json.loads(place.read_text())
    place.write_text(json.dumps({**stored, "mean": stored["mean"][0], "std": stored["std"][0]}))
    assert json.loads(place.read_text())["mean"] == 0.5
    assert ExportedModel.read(exported.folder).preprocessing == rgb
