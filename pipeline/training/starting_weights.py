"""Initial weights of a training: loads the artifact of import-weights into a model.

weights.safetensors      with the tensor names of the original library
source.json              their source and licence
LICENSE                  the licence text, if the source has one
wordpieces.json.gz       the vocabulary, if they belong to a text model
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model_defs import LoadingReport, ModelError
from model_defs.pretrained.files import read_state
from model_defs.pretrained.loading import load_state
from pipeline.artifacts import Artifact
from pipeline.errors import DamagedError, InputError
from pipeline.loading.wordpiece_vocabulary import VOCABULARY, load_vocabulary
from pipeline.training.image_model_config import ImageModelConfig

STAGE = "import-weights"
WEIGHTS, SOURCE, LICENCE = "weights.safetensors", "source.json", "LICENSE"
REPORT = "pretrained.txt"  # in a training: how each tensor was used


@dataclass(frozen=True)
class StartingWeights:
    """Imported weights, which are read when they are loaded."""

    artifact: Artifact

    @classmethod
    def open(cls, artifact: Artifact) -> StartingWeights:
        """The weights of an artifact.

        Raises:
            InputError: it is not one of import-weights.
        """
        if WEIGHTS not in artifact.files or SOURCE not in artifact.files:
            raise InputError(f"{artifact.name}: holds no imported weights; give an artifact of {STAGE}")
        return cls(artifact)

    @property
    def name(self) -> str:
        """The source of the weights, without the folders of the machine that imported them."""
        return str(json.loads(self.artifact.read(SOURCE))["name"])

    @property
    def vocabulary(self) -> dict[str, Any] | None:
        """The word-piece vocabulary, if the weights belong to a text model."""
        return load_vocabulary(self.artifact.path(VOCABULARY)) if VOCABULARY in self.artifact.files else None

    def load_into(self, model: nn.Module, *, normalisation: str = "") -> LoadingReport:
        """Loads the weights into a model, fitted to its shapes; on the meta device only creates the report.

        Args:
            normalisation: normalisation of the images, as text for the report.
        Raises:
            InputError: they are not weights of this architecture.
        """
        path = self.artifact.path(WEIGHTS)
        try:
            state = read_state(path)
        except ModelError as error:
            raise DamagedError(
                f"{error}; delete this artifact with `tutelage artifacts rm` and run {STAGE} again"
            ) from None
        try:
            return load_state(model, state, self.name, normalisation=normalisation)
        except ModelError as error:
            raise InputError(f"pretrained: {error}") from None


def open_weights(pretrained: str | None, weights: Artifact | None, field: str, name: str) -> StartingWeights | None:
    """Opens the imported weights of a stage's inputs; None if its config names no weights.

    Args:
        pretrained: the weights that the config names.
        weights: the artifact in the inputs.
        field: field of the config, for the error message.
        name: name of the stage's input, for the error message.
    Raises:
        InputError: only one of config and inputs has weights.
    """
    if (pretrained is None) == (weights is None):
        return None if weights is None else StartingWeights.open(weights)
    if weights is None:
        raise InputError(f"{field} is {pretrained!r}: give the artifact that {STAGE} makes of it as input {name!r}")
    raise InputError(f"{field} is not set, but there are weights to start from; set it, or leave {weights.name} out")


def starting_report(
    config: ImageModelConfig, weights: Artifact | None, build: Callable[[], nn.Module]
) -> LoadingReport | None:
    """How the initial weights of a classifier will be used; None if it starts from random weights.

    Args:
        build: builds the model; called on the meta device.
    Raises:
        InputError: they are not weights of this model, or the config and the inputs disagree.
    """
    starting = open_weights(config.model.pretrained, weights, "model.pretrained", "weights")
    if starting is None:
        return None
    with torch.device("meta"):
        model = build()
    return starting.load_into(model, normalisation=config.normalisation)


def write_report(report: LoadingReport, folder: Path) -> None:
    """Appends a report to the report file in the trained model's folder."""
    with (folder / REPORT).open("a", encoding="utf-8") as file:
        file.write(f"{report}\n")
