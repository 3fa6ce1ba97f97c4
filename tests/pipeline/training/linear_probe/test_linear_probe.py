"""The stage linear-probe on scanned digits, and a teacher that starts from its head."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import DamagedError, InputError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.stage import EvaluateModel
from pipeline.exported_model import ExportedModel
from pipeline.import_weights.stage import ImportConfig, ImportWeights
from pipeline.registration.stage import imported_weights
from pipeline.sharding.format.index import SampleIndex
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.linear_probe.config import LinearProbeConfig, ProbedModelConfig
from pipeline.training.linear_probe.stage import LinearProbe
from pipeline.training.stage import TrainTeacher
from pipeline.training.starting_head import StartingHead

# One step that moves nothing: the trained weights are the initial ones.
STILL = {
    "training": {"steps": 1, "global_batch": 6, "optimizer": {"kind": "adamw", "lr": 1e-12, "weight_decay": 0}},
    "loader": {"augment": None},
    "mixing": {"mixup": 0, "cutmix": 0},
    "runner": {"runner": "process", "tracking": False},
}
NET = {"widths": [8, 16], "depths": [1, 1]}


@pytest.fixture
def weights(store: ArtifactStore, tmp_path: Path) -> Artifact:
    """Imported weights of a small net for 7 classes."""
    torch.manual_seed(0)
    model = create_model("resnet_small", num_classes=7, in_chans=1, img_size=16, **NET)
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    source = ImportConfig(source=str(tmp_path / "net.safetensors")).resolved(store)
    return run_stage(ImportWeights(), source, {}, store=store)


def teacher(**values: Any) -> ClassificationConfig:
    model = {"name": "resnet_small", "kwargs": NET, "pretrained": "net.safetensors"}
    whole = {**STILL, "image_size": 16, "channels": 1, "mean": 0.5, "std": 0.25, "model": model, **values}
    return parse_config(ClassificationConfig, whole, "test")


def probe(store: ArtifactStore, shards: Artifact, weights: Artifact, **values: Any) -> Artifact:
    config = ProbedModelConfig.of(teacher(), parse_config(LinearProbeConfig, values, "test"))
    return run_stage(LinearProbe(), config, {"shards": shards, "weights": weights}, store=store)


def test_a_probe_is_a_classifier_whose_other_layers_are_the_pretrained_ones(
    store: ArtifactStore, digits: Artifact, weights: Artifact
) -> None:
    made = probe(store, digits, weights)
    exported = ExportedModel.open(made)
    assert (exported.kind, exported.labels) == ("classifier", tuple("0123456789"))
    state, released = exported.weights(), weights.path("weights.safetensors")
    for name, tensor in load_file(released).items():
        if not name.startswith("fc."):
            torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)
    summary = made.summary
    assert summary["val_accuracy"] > 0.5  # of random features; chance is 0.1
    assert summary["samples"] == 228
    assert summary["features"] == 16
    assert (
        summary["headline"] == f"{summary['val_accuracy']:.1%} on 57 val images (linear probe on 228 training images)"
    )
    assert json.loads(made.read("probe.json"))["l2"] == summary["l2"]
    # What the stage says of the val split is what the evaluation of the exported model finds.
    config = EvaluationConfig(split="val")
    evaluated = run_stage(EvaluateModel(), config, {"shards": digits, "model": made}, store=store)
    assert evaluated.summary["accuracy/top1"] == pytest.approx(summary["val_accuracy"], abs=1e-4)


def test_the_same_probe_twice_has_the_same_bits(
    store: ArtifactStore, other_store: ArtifactStore, digits: Artifact, weights: Artifact
) -> None:
    first = probe(store, digits, weights, max_samples=50)
    source = ImportConfig(source=str(weights.path("weights.safetensors"))).resolved(other_store)
    again = run_stage(ImportWeights(), source, {}, store=other_store)
    second = probe(other_store, other_store.resolve(digits.name), again, max_samples=50)
    assert first.summary["samples"] == 50
    assert first.files["model/model.safetensors"] == second.files["model/model.safetensors"]
    assert first.files["probe.json"] == second.files["probe.json"]


def test_without_a_val_split_a_fifth_of_the_training_images_stands_in(
    store: ArtifactStore, digits_without_validation: Artifact, weights: Artifact
) -> None:
    summary = probe(store, digits_without_validation, weights).summary
    assert summary["headline"].endswith("on 57 held-out training images (linear probe on 285 training images)")
    assert summary["val_accuracy"] > 0.5


def test_a_model_without_one_linear_head_is_refused_before_work(
    store: ArtifactStore, digits: Artifact, weights: Artifact
) -> None:
    model = {"name": "deit_micro_distilled", "pretrained": "net.safetensors"}
    config = ProbedModelConfig.of(teacher(model=model), LinearProbeConfig())
    with pytest.raises(InputError, match=r"deit_micro_distilled does not end in one linear layer .*head_dist"):
        run_stage(LinearProbe(), config, {"shards": digits, "weights": weights}, store=store)


def test_a_model_without_pretrained_weights_is_refused(
    store: ArtifactStore, digits: Artifact, weights: Artifact
) -> None:
    config = ProbedModelConfig.of(teacher(model={"name": "resnet_small", "kwargs": NET}), LinearProbeConfig())
    with pytest.raises(InputError, match=r"^linear-probe: model\.pretrained is not set"):
        run_stage(LinearProbe(), config, {"shards": digits, "weights": weights}, store=store)


def test_a_teacher_starts_from_the_head_of_the_probe(store: ArtifactStore, digits: Artifact, weights: Artifact) -> None:
    made = probe(store, digits, weights)
    inputs = {"shards": digits, "weights": weights, "probe": made}
    trained = run_stage(TrainTeacher(), teacher(), inputs, store=store)
    start, end = ExportedModel.open(made).weights(), ExportedModel.open(trained).weights()
    for name in ("fc.weight", "fc.bias", "stem.0.weight"):
        torch.testing.assert_close(end[name], start[name], rtol=0, atol=1e-6)
    report = trained.read("pretrained.txt").decode()
    assert f"adapted fc.weight, fc.bias: the head of {made.name}, val accuracy" in report
    assert "the head is fresh" not in report
    assert trained.manifest["inputs"]["probe"] == made.name
    assert imported_weights(made, store)["pretrained"] == weights.name
    without = run_stage(TrainTeacher(), teacher(), {"shards": digits, "weights": weights}, store=store)
    assert without.key != trained.key


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mean": 0.4}, "preprocessing"),
        ({"model": {"name": "resnet_small", "kwargs": {**NET, "widths": [8, 8]}}}, "arguments of the model"),
        ({"model": {"name": "vit_micro"}}, "model"),
    ],
)
def test_the_head_of_another_model_is_refused(
    store: ArtifactStore, digits: Artifact, weights: Artifact, changes: dict[str, Any], named: str
) -> None:
    made = probe(store, digits, weights)
    if "model" in changes:
        changes["model"]["pretrained"] = "net.safetensors"
    with pytest.raises(InputError, match=rf"^{made.name}: is a linear probe of other {named} \("):
        StartingHead.open(made).checked(teacher(**changes), tuple("0123456789"), weights)


def test_the_head_of_other_labels_or_weights_is_refused(
    store: ArtifactStore, digits: Artifact, weights: Artifact
) -> None:
    made = probe(store, digits, weights)
    with pytest.raises(InputError, match="of other pretrained weights"):
        run_stage(TrainTeacher(), unpretrained(), {"shards": digits, "probe": made}, store=store)
    with pytest.raises(InputError, match="is no linear probe"):
        run_stage(TrainTeacher(), unpretrained(), {"shards": digits, "probe": weights}, store=store)
    head = StartingHead.open(made)
    with pytest.raises(InputError, match="of other arguments of the model"):
        head.checked(teacher(), ("a", "b"), weights)
    with pytest.raises(InputError, match="of other labels"):
        head.checked(teacher(), tuple("abcdefghij"), weights)


def unpretrained() -> ClassificationConfig:
    return teacher(model={"name": "resnet_small", "kwargs": NET})


def test_a_damaged_training_image_is_left_out_and_a_damaged_validation_image_is_not(
    store: ArtifactStore, digits: Artifact, weights: Artifact
) -> None:
    index = SampleIndex.open(digits)
    labelled = {split: [int(id) for id in index.rows(split) if index.labels[id] >= 0] for split in ("train", "val")}
    sound = probe(store, digits, weights, seed=1, max_samples=None)
    with damaged_bytes(digits, labelled["train"][0], labelled["train"][5]):
        damaged = probe(store, digits, weights, seed=2, max_samples=None)
    assert damaged.summary["samples"] == sound.summary["samples"] - 2
    assert damaged.summary["damaged"] == 2
    assert damaged.summary["headline"].endswith("; 2 damaged ones left out)")
    with damaged_bytes(digits, labelled["val"][0]), pytest.raises(DamagedError, match=r"sample \S+ at byte"):
        probe(store, digits, weights, seed=3, max_samples=None)


@contextmanager
def damaged_bytes(shards: Artifact, *ids: int) -> Iterator[None]:
    """Overwrites some bytes of these samples, and restores them."""
    index, whole = SampleIndex.open(shards), {}
    for id in ids:
        path = shards.path(index.shard_names[index.shards[id]], hashed=False)
        whole.setdefault(path, path.read_bytes())
        with path.open("r+b") as file:
            file.seek(int(index.offsets[id]) + 30)
            file.write(b"damaged")
    yield
    for path, content in whole.items():
        path.write_bytes(content)


def test_a_draw_of_less_than_two_images_a_class_is_refused(
    store: ArtifactStore, digits: Artifact, weights: Artifact
) -> None:
    with pytest.raises(InputError, match=r"^baseline.max_samples: 5 training images are too few for \d+ classes"):
        probe(store, digits, weights, max_samples=5)
