"""The protocols between the loop and an objective: Task, TrainingObjects, TrainingRecipe.

A new objective is one Task (loss and metrics of a batch) and one TrainingRecipe (builds its objects on
a worker). The loop and both runners depend on nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.loading.batch import Batch
from pipeline.loading.loader_facts import LoaderFacts
from pipeline.loading.part_times import PartTimes
from pipeline.loading.policies.base import SamplingPolicy
from pipeline.loading.quarantine import Quarantine
from pipeline.training.training_config import TrainingConfig


@dataclass(frozen=True)
class StepOutput:
    """The output of a task for one batch.

    Attributes:
        loss: scalar with gradient, the mean over the rows of the given batch.
        metrics: scalars without gradient, means over the same rows; they remain on the device until a
            row of metrics.jsonl is due.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Measurement(dict[str, float]):
    """The metrics of an evaluation by name, and counts by class.

    Attributes:
        per_class: by name ("images", "correct", "predicted"), one integer for each class; {} for a model without
            classes. They are no metrics of each step, because their number is that of the classes.
    """

    per_class: dict[str, list[int]] = {}  # noqa: RUF012 (replaced by evaluations, never changed)


class Task(Protocol):
    """An objective."""

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        """The loss of a batch (or of a micro-batch, under accumulation).

        Args:
            model: in training mode, may be wrapped by DistributedDataParallel or divided by FSDP: call it, do not
                access its attributes.
            batch: on the model's device; uint8 images [B, C, H, W].

        torch's generator is already seeded for (seed, step, rank); other random numbers come from
        pipeline.counter_rng, keyed by batch.step.
        """


class BatchSource(Protocol):
    """The interface of a loader for the loop; pipeline.loading.loader.Loader implements it."""

    policy: SamplingPolicy
    quarantine: Quarantine | None
    """Collects damaged samples; None: they are errors."""
    times: PartTimes
    """The time of each part of loading."""

    @property
    def lost_processes(self) -> int:
        """The number of decoding processes that died and were replaced."""

    def batches(self, start_step: int, stop_step: int) -> Generator[Batch]:
        """This rank's batches of the steps [start_step, stop_step)."""

    def facts(self) -> LoaderFacts:
        """What limits how fast this loader can be."""

    def close(self) -> None:
        """Ends the loader's threads and processes."""


class StepObserver(Protocol):
    """Sees every step of a training, and may end it."""

    def observe(self, model: nn.Module, batch: Batch, learning_rate: float) -> None:
        """Is called on every rank with the whole gradient of the step, before it is clipped.

        Raises:
            ObservationEnded: on every rank at the same step.
        """

    def report(self) -> dict[str, Any]:
        """What was seen: the result of the training, in place of training.json."""


class ObservationEnded(Exception):
    """Raised by a StepObserver that has seen enough."""


Evaluate = Callable[[nn.Module], dict[str, float]]
Refresh = Callable[[nn.Module, int], dict[str, float]]


@dataclass
class TrainingObjects:
    """The objects that a recipe builds on a worker.

    Attributes:
        model: on the device, not wrapped.
        task: the objective.
        loader: this rank's batches.
        epoch_samples: samples in an epoch; defines where epochs begin, not which samples the policy draws.
        evaluate: called with the (averaged, if EMA is on) model in eval mode, under no_grad, on EVERY rank
            at the same step; returns the same numbers on every rank, e.g. {"val/accuracy": 0.71}.
        refresh: called with the model in eval mode, under no_grad, on every rank when the step reaches
            policy.ready_until(); must advance ready_until(), deterministically and equally on every rank.
            Its result is written to metrics.jsonl.
        freeze_batch_norm: whether batch norm keeps its running statistics in training.
        observer: sees every step; None but in a replay.
    """

    model: nn.Module
    task: Task
    loader: BatchSource
    epoch_samples: int
    evaluate: Evaluate | None = None
    refresh: Refresh | None = None
    freeze_batch_norm: bool = False
    observer: StepObserver | None = None


class TrainingRecipe(Protocol):
    """Builds the objects of a training on any machine.

    A recipe is pickled and sent to Ray workers: it contains configs, the store's URL and STAGE/KEY of its
    inputs, never an open file or a tensor. Implement it as a frozen dataclass at module level.
    """

    @property
    def training(self) -> TrainingConfig:
        """The configuration of the loop."""

    def build(self, device: torch.device, rank: int, world: int) -> TrainingObjects:
        """Opens the inputs and builds the objects, with initial weights that depend only on the seed.

        The model must be on `device`; the loop does not move it. If world > 1, torch.distributed is
        initialised before this call.
        """
