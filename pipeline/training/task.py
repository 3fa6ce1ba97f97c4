"""The protocols between the loop and an objective: Task, Parts, TrainingRecipe.

A new objective is one Task (loss and metrics of a batch) and one TrainingRecipe (how its parts are
made on a worker). The loop and both runners know nothing else about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.loading.batch import Batch
from pipeline.loading.policies.base import SamplingPolicy
from pipeline.loading.quarantine import Quarantine
from pipeline.training.training_config import TrainingConfig


@dataclass(frozen=True)
class StepOutput:
    """What a task says about one batch.

    Attributes:
        loss: scalar with gradient, the mean over the rows of the batch that was given.
        metrics: scalars without gradient, means over the same rows; they stay on the device until a
            row of metrics.jsonl is due.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """An objective."""

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        """The loss of a batch (or of a part of it, under accumulation).

        Args:
            model: in training mode, maybe wrapped by DistributedDataParallel: call it, do not reach into it.
            batch: on the model's device; uint8 images [B, C, H, W].

        torch's generator was seeded for (seed, step, rank) before; other random numbers come from
        pipeline.counter_rng, keyed by batch.step.
        """


class BatchSource(Protocol):
    """What the loop needs of a loader; pipeline.loading.loader.Loader is one."""

    policy: SamplingPolicy
    quarantine: Quarantine | None
    """Where damaged samples go; None: they are errors."""

    @property
    def lost_processes(self) -> int:
        """How often a process that decodes ended before its time, and was replaced."""

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """This rank's batches of the steps [start_step, stop_step)."""

    def close(self) -> None:
        """Ends what it has running beside the trainer."""


Evaluate = Callable[[nn.Module], dict[str, float]]
Refresh = Callable[[nn.Module, int], dict[str, float]]


@dataclass
class Parts:
    """What a recipe builds on a worker.

    Attributes:
        model: on the device, not wrapped.
        task: the objective.
        loader: this rank's batches.
        rows: samples in an epoch; it defines where epochs begin, not what the policy draws.
        evaluate: called with the (averaged, if EMA is on) model in eval mode, under no_grad, on EVERY rank
            at the same step; returns the same numbers on every rank, e.g. {"val/accuracy": 0.71}.
        refresh: called with the model in eval mode, under no_grad, on every rank when the step reaches
            policy.ready_until(); must move ready_until() on, deterministically and equally on every rank.
            What it returns goes into metrics.jsonl.
    """

    model: nn.Module
    task: Task
    loader: BatchSource
    rows: int
    evaluate: Evaluate | None = None
    refresh: Refresh | None = None


class TrainingRecipe(Protocol):
    """How to make the parts of a training, on any machine.

    A recipe is pickled and sent to Ray workers: it holds configs, the store's URL and STAGE/KEY of its
    inputs, never an open file or a tensor. A frozen dataclass at module level is one.
    """

    @property
    def training(self) -> TrainingConfig:
        """The part of the configuration that the loop reads."""

    def build(self, device: torch.device, rank: int, world: int) -> Parts:
        """Opens the inputs and makes the parts, with initial weights that depend on the seed alone.

        The loop moves nothing: the model must be on `device`. Where world > 1 torch.distributed is
        initialised before this call.
        """
