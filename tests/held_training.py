"""Trainings that do not end before a test has looked at them or killed them, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from pipeline.loading.batch import Batch
from pipeline.training.stage import ClassificationRecipe
from pipeline.training.task import StepOutput, Task, TrainingObjects


@dataclass(frozen=True)
class HeldTask:
    """From a step on, its steps take two seconds while a file exists; a driver on Ray looks twice a second."""

    task: Task
    from_step: int
    while_exists: Path

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        end = time.monotonic() + 2
        while batch.step >= self.from_step and self.while_exists.exists() and time.monotonic() < end:
            time.sleep(0.02)
        return self.task.training_step(model, batch)


@dataclass(frozen=True)
class HeldRecipe(ClassificationRecipe):
    """Trains a HeldTask."""

    from_step: int = 0
    while_exists: Path = Path()

    def build(self, device: torch.device, rank: int, world: int) -> TrainingObjects:
        objects = super().build(device, rank, world)
        return replace(objects, task=HeldTask(objects.task, self.from_step, self.while_exists))


def held_recipe(from_step: int, while_exists: Path) -> Callable[..., ClassificationRecipe]:
    """What a test puts in the place of `pipeline.training.stage.ClassificationRecipe`."""
    return partial(HeldRecipe, from_step=from_step, while_exists=while_exists)
