"""Early stopping: a training ends when its validation accuracy no longer rises, and exports its best weights.

The state is part of the checkpoint, and every rank sees the same numbers, so that all ranks, and a resumed run, stop
at the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pipeline.training.fsdp.tensor_parts import on_host
from pipeline.training.task import Measurement

METRIC = "val/accuracy"


class EarlyStopping:
    """Counts the evaluations without gain, and keeps the weights of the best one (with FSDP, its part) on the CPU.

    Args:
        patience: number of evaluations in a row without a higher METRIC after which the training ends.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = float("-inf")
        self.best_step = 0
        self.without_gain = 0
        self.weights: dict[str, Tensor] = {}
        self.per_class: dict[str, list[int]] = {}

    @property
    def finished(self) -> bool:
        """Whether the training ends now."""
        return self.without_gain >= self.patience

    def update(self, step: int, metrics: Measurement, model: nn.Module) -> None:
        """Records the evaluation of `model` after `step`; of equal ones the first is the best."""
        if metrics[METRIC] > self.best:
            self.best, self.best_step, self.without_gain = metrics[METRIC], step, 0
            self.weights = {name: on_host(value) for name, value in model.state_dict().items()}
            self.per_class = metrics.per_class
        else:
            self.without_gain += 1

    def state(self) -> dict[str, Any]:
        """The state without the weights, as JSON values."""
        return {
            "best": self.best,
            "best_step": self.best_step,
            "without_gain": self.without_gain,
            "per_class": self.per_class,
        }

    def load_state(self, state: Mapping[str, Any], weights: dict[str, Tensor]) -> None:
        """Continues from `state()` and `weights` of a checkpoint."""
        self.best, self.best_step = float(state["best"]), int(state["best_step"])
        self.without_gain, self.weights = int(state["without_gain"]), weights
        self.per_class = state.get("per_class", {})

    def note(self, step: int, total: int) -> str | None:
        """A sentence if a training ended after `step` of `total`, or exports its initial weights; else None."""
        exported = f"the weights of step {self.best_step:,} (val accuracy {self.best:.1%}) are exported"
        if self.best_step == 0:
            exported = (
                f"no later weights were better than the initial ones (val accuracy {self.best:.1%}), which are exported"
            )
        if step < total:
            return f"stopped early at step {step:,} of {total:,}: patience={self.patience}; {exported}"
        return exported if self.best_step == 0 else None
