"""The initial head of a training: that of a linear probe of the same pretrained weights.

A training that begins with a random head first changes the pretrained features to suit it; with a fitted head it does
not (LP-FT, Kumar et al. 2022).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from model_defs import LoadingReport
from pipeline.artifacts import Artifact
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.training.image_model_config import ImageModelConfig
from pipeline.training.linear_head import linear_head_name

STAGE = "linear-probe"


@dataclass(frozen=True)
class StartingHead:
    """The last layer of a linear probe, read when it is loaded."""

    exported: ExportedModel
    artifact: Artifact

    @classmethod
    def open(cls, artifact: Artifact) -> Self:
        """The head of an artifact.

        Raises:
            InputError: it is not one of linear-probe.
        """
        if artifact.stage != STAGE:
            raise InputError(f"{artifact.name}: is no linear probe; give an artifact of {STAGE} as input 'probe'")
        return cls(ExportedModel.open(artifact), artifact)

    def checked(self, config: ImageModelConfig, labels: Sequence[str], weights: Artifact | None) -> Self:
        """Checks that it is a probe of the model that a training builds; returns itself.

        Raises:
            InputError: architecture, arguments, labels, preprocessing or pretrained weights differ.
        """
        arguments = json.loads(json.dumps(config.model_kwargs(len(labels))))
        compared: dict[str, tuple[Any, Any]] = {
            "model": (self.exported.architecture, config.model.name),
            "arguments of the model": (self.exported.kwargs, arguments),
            "labels": (self.exported.labels, tuple(labels)),
            "preprocessing": (self.exported.preprocessing, config.preprocessing()),
            "pretrained weights": (
                self.artifact.manifest["inputs"].get("weights"),
                None if weights is None else weights.name,
            ),
        }
        for name, (probed, trained) in compared.items():
            if probed != trained:
                raise InputError(
                    f"{self.artifact.name}: is a linear probe of other {name} ({probed}) than those of this training "
                    f"({trained}); give the probe of the same model, or leave it out"
                )
        return self

    def added_to_report(self, report: LoadingReport | None, config: ImageModelConfig) -> LoadingReport | None:
        """The report on the pretrained weights, with the origin of the head; None without a report."""
        if report is None:
            return None
        with torch.device("meta"):
            names = self._tensor_names(config.build_model(len(self.exported.labels)))
        accuracy = self.artifact.summary["val_accuracy"]
        return report.with_replaced(names, f"the head of {self.artifact.name}, val accuracy {accuracy:.1%}")

    def load_into(self, model: nn.Module) -> None:
        """Replaces the head of a model."""
        state = self.exported.weights()
        model.load_state_dict({name: state[name] for name in self._tensor_names(model)}, strict=False)

    def _tensor_names(self, model: nn.Module) -> list[str]:
        head = linear_head_name(model, self.exported.architecture)
        return [f"{head}.weight", f"{head}.bias"]
