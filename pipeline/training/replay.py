"""Runs one step of a recorded training again, exactly: `tutelage replay`.

    newest checkpoint at or before the step, or the start -> the steps up to it, as the training did them
    -> the step, observed (observed_step.py) -> on to the next log entry, which shows that the bits are the same

The training's recipe, data, number of workers and threads are used; nothing is evaluated, and nothing is written to the
store. A step that is not finite is skipped as by on_nonfinite=skip, so that what follows is what a rollback led to.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.storage import open_storage
from pipeline.training.checkpoint import Checkpoints, step_of
from pipeline.training.interruption import StopRequest, stoppable
from pipeline.training.logged_rows import compare_entries, entry_after
from pipeline.training.observed_step import ObservedStep
from pipeline.training.recorded_training import RecordedTraining
from pipeline.training.reporter import DriverReporter
from pipeline.training.runner import check, run_recipe
from pipeline.training.task import TrainingObjects, TrainingRecipe
from pipeline.training.training_config import TrainingConfig
from pipeline.training.worker import CheckpointLocation


def replay(recorded: RecordedTraining, step: int, progress: Progress) -> dict[str, Any]:
    """Runs a step again.

    Args:
        step: numbered from 0, as errors and saved batches number it.
    Returns:
        "step"; "from_step"; "loss" and "gradient_norm", of the global batch, before clipping; "learning_rate"; "ids" of
        its samples; "finite"; "weights_finite", before the step; "first_nonfinite", the first module, in the forward
        pass, whose output is not finite, and "first_nonfinite_rank"; "layers", the gradient norm by module;
        "saved_batches", of each rank "equal", the tensors that differ, or None if none was saved; "entries", see
        `compare_entries`; "device", and "trained_on" if that was another one.
    Raises:
        InputError: there is no such step, or this machine lacks what the training needs.
        WorkError: as the training.
    """
    recorded.check(step)
    end = entry_after(recorded.rows, step) or step + 1
    recipe = ReplayRecipe(
        recorded.recipe, recorded.log_every_steps(), recorded.accumulation, step, end, recorded.saved, _url(recorded)
    )
    check(recipe, recorded.runner)
    location = ReplayLocation(_url(recorded), recorded.checkpoints.prefix, step)
    with stoppable() as stop, tempfile.TemporaryDirectory() as scratch:
        reporter = _RowReporter(progress, stop)
        report = run_recipe(recipe, recorded.runner, location, reporter, Path(scratch))
    start = recorded.start(step)
    report |= {"from_step": start, "entries": compare_entries(recorded.rows, reporter.rows, start)}
    if recorded.device is not None and recorded.device != report["device"]:
        report["trained_on"] = recorded.device
    return report


@dataclass(frozen=True)
class ReplayRecipe:
    """The recipe of another recipe's training up to a step, which is observed."""

    recipe: TrainingRecipe
    log_every_steps: int
    accumulation: int
    step: int
    end: int
    saved: str
    store_url: str

    @property
    def training(self) -> TrainingConfig:
        changed = {
            "log_every_steps": self.log_every_steps,
            "accumulation": self.accumulation,
            "auto_micro_batch": False,
            "on_nonfinite": "skip",
            "max_skipped_steps": 100_000,
            "checkpoint_every_steps": None,
            "checkpoint_every_s": 1e9,
        }
        return self.recipe.training.model_copy(update=changed)

    def build(self, device: torch.device, rank: int, world: int) -> TrainingObjects:
        """The objects of the training, without its evaluation.

        Raises:
            InputError: the training has no such step.
        """
        objects = self.recipe.build(device, rank, world)
        total = self.training.total_steps(objects.epoch_samples)
        if self.step >= total:
            objects.loader.close()
            raise InputError(f"there is no step {self.step:,}: the training ends with step {total - 1:,}")
        observed = ObservedStep(self.step, self.end, (open_storage(self.store_url), self.saved), rank, world)
        objects.task = observed.watched(objects.task)
        objects.evaluate = None
        objects.observer = observed
        return objects


@dataclass(frozen=True)
class ReplayLocation(CheckpointLocation):
    """Checkpoints that are only read, up to that of a step."""

    step: int

    def open(self) -> Checkpoints:
        return _ReadCheckpoints(self.store_url, self.prefix, self.step)


class _ReadCheckpoints(Checkpoints):
    WRITABLE = False

    def __init__(self, store_url: str, prefix: str, step: int) -> None:
        super().__init__(open_storage(store_url), prefix)
        self._step = step

    def entries(self) -> list[str]:
        return [path for path in super().entries() if step_of(path) <= self._step]

    def save_beside(self, values: dict[str, Any], path: str) -> None:
        pass


class _RowReporter(DriverReporter):
    def __init__(self, progress: Progress, stop: StopRequest) -> None:
        super().__init__(progress, None, stop)
        self.rows: list[dict[str, Any]] = []

    def row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def _url(recorded: RecordedTraining) -> str:
    return recorded.checkpoints.storage.url
