"""Early stopping of whole trainings: one without gain ends, and ends alike after a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import canonical_json
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.errors import InputError
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import TrainTeacher
from pipeline.training.training_config import TrainingConfig
from tests.forked import Forked

BuildConfig = Callable[..., ClassificationConfig]
Start = Callable[..., Forked]


def test_a_training_without_gain_stops_early_at_the_same_step_after_a_kill(
    store: ArtifactStore,
    digits: Artifact,
    other_store: ArtifactStore,
    small_config: BuildConfig,
    forked_training: Start,
) -> None:
    config = small_config(
        steps=3000, patience=4, warmup=0, optimizer={"kind": "adamw", "lr": 0.003}, checkpoint_every_steps=10
    )
    child = forked_training(store, config, held_from=20)
    work = store.local / "work" / "train-teacher"
    while not list(work.glob("*/scratch/checkpoints/step-*.json")):
        assert child.poll() is None
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not list(store.list("train-teacher"))

    resumed = run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    straight = run_stage(TrainTeacher(), config, {"shards": other_store.resolve("shard-dataset/0")}, store=other_store)
    assert resumed.read("model/model.safetensors") == straight.read("model/model.safetensors")
    names = ("steps", "best_step", "val_accuracy", "notes")
    assert [resumed.summary[name] for name in names] == [straight.summary[name] for name in names]

    rows = [json.loads(line) for line in straight.read("metrics.jsonl").splitlines()]
    measured = {row["step"]: row["val/accuracy"] for row in rows if "val/accuracy" in row}
    best = max(measured, key=lambda step: (measured[step], -step))
    assert straight.summary["best_step"] == best
    assert straight.summary["val_accuracy"] == round(measured[best], 4)
    assert straight.summary["steps"] == max(measured) < 3000
    assert [step for step in measured if step > best] == list(measured)[-4:]
    assert straight.summary["notes"][0].startswith(f"stopped early at step {max(measured)} of 3,000: patience=4; ")


def test_patience_needs_evaluations_of_a_classifier(
    digits_without_validation: Artifact, small_config: BuildConfig
) -> None:
    with pytest.raises(ValueError, match="evaluate_every_epochs=0 has one only"):
        TrainingConfig(patience=2, evaluate_every_epochs=0)
    with pytest.raises(ValueError, match="early stopping is for classifiers"):
        ContrastiveConfig(training=TrainingConfig(patience=2))
    small_config().check(digits_without_validation)
    with pytest.raises(InputError, match=r"training\.patience: .* no labelled sample in its val split"):
        small_config(patience=2).check(digits_without_validation)


def test_keys_of_trainings_without_patience_are_as_before() -> None:
    assert "patience" not in canonical_json(TrainingConfig())
    assert '"patience":3' in canonical_json(TrainingConfig(patience=3))
