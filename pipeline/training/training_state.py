"""The state of a training between two steps, which is the content of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pipeline.training.checkpoint import Checkpoint
from pipeline.training.early_stopping import EarlyStopping
from pipeline.training.ema import WeightAverage
from pipeline.training.exported_weights import ExportedWeights
from pipeline.training.fsdp.tensor_parts import load_optimizer, load_weights
from pipeline.training.meter import Meter
from pipeline.training.nonfinite import NonFiniteSteps
from pipeline.training.precision import LossScale
from pipeline.training.task import BatchSource


@dataclass
class TrainingState:
    """The content of a checkpoint; `checkpoint` and `resume` are inverses of each other.

    Attributes:
        average, early_stopping: None where the config has none.
        step: the next step, which is the number of steps done.
        metric_rows: the lines of metrics.jsonl so far.
    """

    model: nn.Module
    average: WeightAverage | None
    optimizer: torch.optim.Optimizer
    loader: BatchSource
    meter: Meter
    exported: ExportedWeights
    loss_scale: LossScale
    nonfinite: NonFiniteSteps
    early_stopping: EarlyStopping | None = None
    step: int = 0
    metric_rows: list[dict[str, Any]] = field(default_factory=list)

    def finished(self, total: int) -> bool:
        """Whether the training of `total` steps ends before the next step."""
        return self.step >= total or (self.early_stopping is not None and self.early_stopping.finished)

    def checkpoint(self) -> Checkpoint:
        """The state now; its tensors are those of the training, not copies."""
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            tensors["average"] = self.average.module.state_dict()
        notes = {"policy": self.loader.policy.state(), "rows": self.metric_rows, "seconds": self.meter.seconds}
        notes |= {"exported": self.exported.state(), "times": self.meter.times}
        if self.loss_scale.is_on:
            notes["loss_scale"] = self.loss_scale.state()
        if self.loader.quarantine is not None:
            notes["quarantine"] = self.loader.quarantine.lines()
        if self.nonfinite.skipped:
            notes["skipped"] = self.nonfinite.skipped
        if self.early_stopping is not None and self.early_stopping.weights:
            tensors["best"] = self.early_stopping.weights
            notes["early_stopping"] = self.early_stopping.state()
        return Checkpoint(self.step, tensors, notes)

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Continues from a checkpoint; without one, nothing changes."""
        if checkpoint is None:
            return
        self.step, self.metric_rows = checkpoint.step, list(checkpoint.notes["rows"])
        self.meter.restart()
        self.optimizer.zero_grad(set_to_none=True)  # after a rollback, that of the step that was not finite
        self.meter.seconds, self.meter.times = checkpoint.notes["seconds"], checkpoint.notes.get("times", {})
        self.nonfinite.skipped = list(checkpoint.notes.get("skipped", []))
        self.loader.policy.load_state(checkpoint.notes["policy"])
        if self.loader.quarantine is not None:
            self.loader.quarantine.merge(checkpoint.notes.get("quarantine", []))
        load_weights(self.model, checkpoint.tensors["model"])
        load_optimizer(self.optimizer, checkpoint.tensors["optimizer"])
        if "exported" in checkpoint.notes:
            self.exported.load_state(checkpoint.notes["exported"])
        self.loss_scale.load_state(checkpoint.notes.get("loss_scale", {}))
        if self.early_stopping is not None and "early_stopping" in checkpoint.notes:
            self.early_stopping.load_state(checkpoint.notes["early_stopping"], checkpoint.tensors["best"])
        if self.average is not None:
            load_weights(self.average.module, checkpoint.tensors["average"])
