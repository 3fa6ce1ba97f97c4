"""The weights that a training exports: the last ones, their moving average (EMA), or the more accurate of both.

With EMA, each evaluation measures both. Metrics of the exported weights have the plain names, e.g. "val/accuracy";
those of the other ones end in "_raw" or "_ema". So early stopping, charts and summaries follow what is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from pipeline.training.checkpoint import Checkpoint
from pipeline.training.early_stopping import METRIC
from pipeline.training.ema import WeightAverage
from pipeline.training.task import Measurement
from pipeline.training.training_config import ExportWeights

_TENSORS = {"raw": "model", "ema": "average"}  # in a checkpoint
_WORDS = {"raw": "raw", "ema": "averaged (EMA)"}


class ExportedWeights:
    """Chooses between a model and its moving average.

    Args:
        choice: `training.export_weights`; without an average the model itself is exported.

    Attributes:
        name: the exported weights now, "raw" or "ema".
        per_class: counts by class of the latest evaluation of the exported weights, see Measurement.
    """

    def __init__(self, choice: ExportWeights, model: nn.Module, average: WeightAverage | None) -> None:
        self._choice = choice
        self._modules = {"raw": model} if average is None else {"ema": average.module, "raw": model}
        self.name = "raw" if average is None or choice == "raw" else "ema"
        self.per_class: dict[str, list[int]] = {}
        self._accuracies: dict[str, float] = {}

    @property
    def module(self) -> nn.Module:
        """The model with the exported weights."""
        return self._modules[self.name]

    def measure(self, evaluate: Callable[[nn.Module], dict[str, float]]) -> Measurement:
        """Evaluates both weights; with `best`, the more accurate ones are exported from now on (EMA if equal)."""
        measured = {name: evaluate(module) for name, module in self._modules.items()}
        if self._choice == "best" and len(measured) > 1:
            self._accuracies = {name: metrics[METRIC] for name, metrics in measured.items()}
            self.name = max(self._accuracies, key=lambda name: self._accuracies[name])
        result = Measurement(measured[self.name])
        for name, metrics in measured.items():
            # With `best` the plain names change between the two, so both have names of their own too.
            if name != self.name or self._choice == "best":
                result.update({f"{metric}_{name}": value for metric, value in metrics.items()})
        result.per_class = self.per_class = getattr(measured[self.name], "per_class", {})
        return result

    def state(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {"weights": self.name, "per_class": self.per_class, "accuracies": self._accuracies}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from `state()` of a checkpoint."""
        self.name, self.per_class, self._accuracies = state["weights"], state["per_class"], state["accuracies"]

    def note(self) -> str | None:
        """With `best`, a sentence that says which weights are exported; else None."""
        if not self._accuracies:
            return None
        other = next(name for name in self._accuracies if name != self.name)
        chosen, left = self._accuracies[self.name], self._accuracies[other]
        return (
            f"the {_WORDS[self.name]} weights are exported (val accuracy {chosen:.1%}; "
            f"the {_WORDS[other]} ones {left:.1%})"
        )


def exported_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The state dict to export, from the last checkpoint of a training: with early stopping that of its best step."""
    return dict(checkpoint.tensors[exported_part(checkpoint.tensors, checkpoint.notes)])


def exported_part(parts: Collection[str], notes: Mapping[str, Any]) -> str:
    """Which part of a checkpoint is exported: "best", "average" or "model"."""
    if "best" in parts:
        return "best"
    default = "ema" if "average" in parts else "raw"
    return _TENSORS[notes.get("exported", {}).get("weights", default)]


def exported_per_class(checkpoint: Checkpoint) -> dict[str, list[int]]:
    """The counts by class of the exported weights, see Measurement; {} if they were not measured."""
    holder = "early_stopping" if "best" in checkpoint.tensors else "exported"
    counts: dict[str, list[int]] = checkpoint.notes.get(holder, {}).get("per_class", {})
    return counts
