"""A step that exceeds the memory: smaller micro-batches, with the loss of the whole batch, on every worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.exported_model import ExportedModel
from pipeline.loading.batch import Batch
from pipeline.stage import run_stage
from pipeline.training import ray_train
from pipeline.training import stage as training_stage
from pipeline.training.classification import Classification
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.interruption import StopRequest
from pipeline.training.out_of_memory import StepMemoryError
from pipeline.training.placement import RunnerConfig
from pipeline.training.reporter import DriverReporter
from pipeline.training.stage import ClassificationRecipe, TrainTeacher
from pipeline.training.task import StepOutput, Task, TrainingObjects
from pipeline.training.worker import CheckpointLocation

BuildConfig = Callable[..., ClassificationConfig]
# Without stochastic depth, whose random numbers depend on the cut.
STEADY = {"name": "vit_micro", "kwargs": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2}}
SHAPE: dict[str, Any] = {"model": STEADY, "steps": 12, "checkpoint_every_steps": 4, "log_every_steps": 1}


class SmallMemory(Classification):
    """Has memory for `rows` rows from a step on, and before it for all."""

    rows, from_step = 8, 0

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        output = super().training_step(model, batch)  # also changes running statistics, if the model has any
        if batch.step >= self.from_step and len(batch) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return output


class SmallMemoryLater(SmallMemory):
    from_step = 6


class NoMemory(SmallMemory):
    rows = 0


def rows_of(artifact: Artifact) -> list[dict[str, float]]:
    return [json.loads(line) for line in artifact.read("metrics.jsonl").splitlines()]


def test_from_the_first_step_it_is_a_training_with_that_accumulation(
    store: ArtifactStore,
    digits: Artifact,
    other_store: ArtifactStore,
    small_config: BuildConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    four = run_stage(
        TrainTeacher(),
        small_config(**SHAPE, accumulation=4),
        {"shards": other_store.resolve("shard-dataset/0")},
        store=other_store,
    )
    monkeypatch.setattr(training_stage, "Classification", SmallMemory)
    raised = run_stage(TrainTeacher(), small_config(**SHAPE, auto_micro_batch=True), {"shards": digits}, store=store)
    weights, expected = ExportedModel.open(raised).weights(), ExportedModel.open(four).weights()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert raised.summary["notes"] == [
        "too little memory for accumulation=1: it was raised to 4 (training.auto_micro_batch)"
    ]


def test_later_it_goes_on_from_the_checkpoint_with_the_same_loss(
    store: ArtifactStore,
    digits: Artifact,
    other_store: ArtifactStore,
    small_config: BuildConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shards = other_store.resolve("shard-dataset/0")
    whole = run_stage(TrainTeacher(), small_config(**SHAPE), {"shards": shards}, store=other_store)
    monkeypatch.setattr(training_stage, "Classification", SmallMemoryLater)
    begun: list[int] = []

    def progress(*, step: int = 0, **numbers: Any) -> None:
        begun.append(step)

    raised = run_stage(
        TrainTeacher(),
        small_config(**SHAPE, auto_micro_batch=True),
        {"shards": digits},
        store=store,
        progress=progress,
    )
    for row, expected in zip(rows_of(raised), rows_of(whole), strict=True):
        assert row["step"] == expected["step"]
        if "train/loss" in row:
            assert row["train/loss"] == pytest.approx(expected["train/loss"], abs=1e-5)
    # Up to the checkpoint after step 4, the bits are those of the whole batch.
    losses = [[row["train/loss"] for row in rows_of(run) if "train/loss" in row][:4] for run in (raised, whole)]
    assert losses[0] == losses[1]


def test_a_resumed_run_starts_with_it(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_stage, "Classification", SmallMemory)
    config, failed = small_config(**SHAPE, auto_micro_batch=True), Exception("killed")

    def killing(*, step: int = 0, **numbers: Any) -> None:
        if step >= 1:
            raise failed

    with pytest.raises(Exception, match="killed"):
        run_stage(TrainTeacher(), config, {"shards": digits}, store=store, progress=killing)
    sizes: list[int] = []

    class Recording(SmallMemory):
        def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
            sizes.append(len(batch))
            return super().training_step(model, batch)

    monkeypatch.setattr(training_stage, "Classification", Recording)
    run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    assert set(sizes) == {8}


def test_without_the_setting_it_is_one_line_that_names_it(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_stage, "Classification", SmallMemory)
    with pytest.raises(StepMemoryError, match=r"^step 0: too little memory for 32 rows at once \(CUDA out of memory"):
        run_stage(TrainTeacher(), small_config(**SHAPE), {"shards": digits}, store=store)


def test_one_row_that_does_not_fit_is_an_error(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_stage, "Classification", NoMemory)
    with pytest.raises(StepMemoryError, match=r"too little memory for 1 row at once .*use a smaller model"):
        run_stage(TrainTeacher(), small_config(**SHAPE, auto_micro_batch=True), {"shards": digits}, store=store)


class _SmallOnRank1:
    def __init__(self, task: Task, rank: int) -> None:
        self._task, self._rank = task, rank

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        output = self._task.training_step(model, batch)
        if self._rank == 1 and len(batch) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return output


@dataclass(frozen=True)
class SmallRecipe(ClassificationRecipe):
    """Rank 1 has less memory than rank 0."""

    def build(self, device: torch.device, rank: int, world: int) -> TrainingObjects:
        objects = super().build(device, rank, world)
        objects.task = _SmallOnRank1(objects.task, rank)
        return objects


@pytest.mark.ray
def test_all_workers_take_the_accumulation_that_one_needs(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, tmp_path: Path
) -> None:
    recipe = SmallRecipe(small_config(**SHAPE, auto_micro_batch=True), store.storage.url, digits.name)
    reporter = DriverReporter(lambda **said: None, None, StopRequest())
    location = CheckpointLocation(store.storage.url, "work/x")
    runner = RunnerConfig(workers=2, cpus_per_worker=1, use_gpu="no", max_failures=0)
    try:
        run_info = ray_train.run(recipe, runner, location, reporter, tmp_path)
    finally:
        ray_train.shutdown()
    assert run_info["accumulation"] == 2
    assert run_info["notes"] == ["too little memory for accumulation=1: it was raised to 2 (training.auto_micro_batch)"]
