"""How the workers of a training share its model; the loop does the same for each way.

ddp     every rank has the whole model (DistributedDataParallel); rank 0 writes checkpoints. Also one process.
fsdp    every rank has a part of it (pipeline.training.fsdp) and writes its part of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.training.checkpoint import Checkpoint, Checkpoints
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.data_parallel import wrap_in_ddp
from pipeline.training.ema import WeightAverage
from pipeline.training.task import Evaluate
from pipeline.training.training_config import TrainingConfig


class Parallelism(Protocol):
    """What the loop asks of a way to share the model; every rank calls each method."""

    def average(self, model: nn.Module, decay: float | None) -> WeightAverage | None:
        """The average of the weights, if there is one. From here on, `model` is divided among the ranks, or is not."""

    def newest(
        self,
        checkpoints: Checkpoints,
        model: nn.Module,
        average: WeightAverage | None,
        optimizer: torch.optim.Optimizer,
    ) -> Checkpoint | None:
        """The newest intact checkpoint, whose tensors `tensor_parts.load_weights` and `load_optimizer` load."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model to call in training, whose gradients are averaged over the ranks."""

    def evaluation(self, evaluate: Evaluate) -> Evaluate:
        """`evaluate`, as it can be called on every rank."""

    def writer(self, checkpoints: Checkpoints) -> CheckpointWriter | None:
        """Writes this rank's part of the checkpoints; None: it has none."""

    def decide(self, stop: bool, checkpoint: bool) -> tuple[bool, bool]:
        """Whether this rank stops, and whether it starts a checkpoint, from what this rank finds."""


class DataParallel:
    """Every rank has the whole model.

    Args:
        world: number of ranks; 1 is a single process.
    """

    def __init__(self, device: torch.device, rank: int, world: int) -> None:
        self._device = device
        self._rank = rank
        self._world = world

    def average(self, model: nn.Module, decay: float | None) -> WeightAverage | None:
        return None if decay is None else WeightAverage(model, decay)

    def newest(
        self,
        checkpoints: Checkpoints,
        model: nn.Module,
        average: WeightAverage | None,
        optimizer: torch.optim.Optimizer,
    ) -> Checkpoint | None:
        return checkpoints.newest()

    def wrap(self, model: nn.Module) -> nn.Module:
        return wrap_in_ddp(model, self._device) if self._world > 1 else model

    def evaluation(self, evaluate: Evaluate) -> Evaluate:
        return evaluate

    def writer(self, checkpoints: Checkpoints) -> CheckpointWriter | None:
        return CheckpointWriter(checkpoints) if self._rank == 0 else None

    def decide(self, stop: bool, checkpoint: bool) -> tuple[bool, bool]:
        return stop, checkpoint


@contextmanager
def without_exchange(wrapped: nn.Module) -> Iterator[None]:
    """A context whose backward passes exchange no gradients: those of all but the last micro-batch.

    Args:
        wrapped: as `wrap` returns it.
    """
    if isinstance(wrapped, DistributedDataParallel):
        with wrapped.no_sync():
            yield
    elif (exchange := getattr(wrapped, "set_requires_gradient_sync", None)) is not None:  # of FSDP
        exchange(False)
        try:
            yield
        finally:
            exchange(True)
    else:
        yield


def parallelism(training: TrainingConfig, device: torch.device, rank: int, world: int) -> Parallelism:
    """The way of `training.parallelism`; one worker has the whole model in any case."""
    if training.parallelism == "fsdp" and world > 1:
        from pipeline.training.fsdp.fully_sharded import FullyShardedDataParallel

        return FullyShardedDataParallel(device, rank)
    return DataParallel(device, rank, world)
