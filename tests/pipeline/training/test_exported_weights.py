"""The weights that a training exports: what is logged under the plain names is what is exported."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import canonical_json
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.stage import run_stage
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.ema import WeightAverage
from pipeline.training.exported_weights import ExportedWeights, exported_per_class, exported_state
from pipeline.training.stage import ClassificationRecipe, TrainTeacher
from pipeline.training.training_config import TrainingConfig

BuildConfig = Callable[..., ClassificationConfig]
CPU = torch.device("cpu")


@pytest.mark.parametrize(("choice", "other"), [("ema", ("raw",)), ("raw", ("ema",)), ("best", ("raw", "ema"))], ids=str)
@pytest.mark.parametrize("patience", [None, 2])
def test_what_is_logged_is_what_is_exported(
    store: ArtifactStore,
    digits: Artifact,
    small_config: BuildConfig,
    choice: str,
    other: tuple[str, ...],
    patience: int | None,
) -> None:
    lr = {"kind": "adamw", "lr": 0.003}
    config = small_config(steps=30, ema_decay=0.8, export_weights=choice, patience=patience, optimizer=lr)
    artifact = run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    rows = [json.loads(line) for line in artifact.read("metrics.jsonl").splitlines()]
    step = artifact.summary.get("best_step", 30)
    logged = next(row for row in reversed(rows) if "val/loss" in row and row["step"] == step)
    evaluate = ClassificationRecipe(config, store.storage.url, digits.name).build(CPU, 0, 1).evaluate
    assert evaluate is not None
    with torch.no_grad():
        exported: Any = evaluate(ExportedModel.open(artifact).build())
    for name, value in exported.items():
        assert logged[name] == pytest.approx(value, rel=1e-6), name
        assert all(f"{name}_{which}" in logged for which in other)
    if len(other) == 1:
        assert logged["val/loss"] != logged[f"val/loss_{other[0]}"]
    else:
        assert logged["val/accuracy"] == max(logged["val/accuracy_raw"], logged["val/accuracy_ema"])
        assert any("weights are exported (val accuracy" in note for note in artifact.summary["notes"])

    table = list(csv.DictReader(artifact.read("per_class.csv").decode().splitlines()))
    assert [row["label"] for row in table] == list("0123456789")
    assert [int(row["correct"]) for row in table] == exported.per_class["correct"]
    assert sum(int(row["correct"]) for row in table) / 57 == pytest.approx(logged["val/accuracy"])


def weights_of(choice: Any) -> tuple[ExportedWeights, nn.Module, nn.Module]:
    model = nn.Linear(1, 1)
    average = WeightAverage(model, 0.5)
    return ExportedWeights(choice, model, average), model, average.module


def test_best_follows_the_more_accurate_of_both_also_after_a_resume() -> None:
    exported, model, average = weights_of("best")
    accuracies = {id(model): 0.4, id(average): 0.4}

    def evaluate(module: nn.Module) -> dict[str, float]:
        return {"val/accuracy": accuracies[id(module)]}

    exported.measure(evaluate)
    assert exported.module is average
    accuracies[id(model)] = 0.6
    assert exported.measure(evaluate) == {"val/accuracy": 0.6, "val/accuracy_raw": 0.6, "val/accuracy_ema": 0.4}
    assert exported.module is model
    resumed, resumed_model, _ = weights_of("best")
    resumed.load_state(json.loads(json.dumps(exported.state())))
    assert resumed.module is resumed_model
    assert resumed.note() == exported.note()
    assert exported.note() == ("the raw weights are exported (val accuracy 60.0%; the averaged (EMA) ones 40.0%)")


def test_a_checkpoint_of_an_older_version_exports_its_average() -> None:
    tensors = {"model": {"weight": torch.zeros(1)}, "average": {"weight": torch.ones(1)}}
    old = Checkpoint(3, tensors, {"rows": []})
    assert exported_state(old)["weight"] == 1
    assert exported_per_class(old) == {}
    assert exported_state(Checkpoint(3, tensors, {"exported": {"weights": "raw"}}))["weight"] == 0


def test_a_choice_without_an_average_or_an_accuracy_is_refused(
    digits_without_validation: Artifact, small_config: BuildConfig
) -> None:
    with pytest.raises(ValueError, match="export_weights=raw: there is no moving average; set ema_decay"):
        TrainingConfig(export_weights="raw")
    with pytest.raises(ValueError, match="best is for classifiers"):
        ContrastiveConfig(training=TrainingConfig(ema_decay=0.9, export_weights="best"))
    with pytest.raises(InputError, match=r"training\.export_weights: best needs labelled samples in the val split"):
        small_config(export_weights="best").check(digits_without_validation)


def test_keys_of_trainings_that_export_the_average_are_as_before() -> None:
    assert "export_weights" not in canonical_json(TrainingConfig(ema_decay=0.9))
    assert '"export_weights":"raw"' in canonical_json(TrainingConfig(ema_decay=0.9, export_weights="raw"))
