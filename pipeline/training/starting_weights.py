"""Weights that a training starts from: the artifact of import-weights, put into a model.

weights.safetensors      by the names of the library they came from
source.json              where they came from, and under which licence
LICENSE                  its text, if the source has one
wordpieces.json.gz       the vocabulary, if they are a text model's
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
REPORT = "pretrained.txt"  # of a training: what became of each tensor


@dataclass(frozen=True)
class StartingWeights:
    """Imported weights, read when they are loaded."""

    artifact: Artifact

    @classmethod
    def open(cls, artifact: Artifact) -> StartingWeights:
        """The weights of an artifact.

        Raises:
            InputError: it is not one of import-weights.
        """
        if WEIGHTS not in artifact.files or SOURCE not in artifact.files:
            raise InputError(f"{artifact.uri}: holds no imported weights; give an artifact of {STAGE}")
        return cls(artifact)

    @property
    def name(self) -> str:
        """Where they came from, without the folders of the machine that imported them."""
        return str(json.loads(self.artifact.read(SOURCE))["name"])

    @property
    def vocabulary(self) -> dict[str, Any] | None:
        """Of the word pieces that they read, if they do."""
        return load_vocabulary(self.artifact.path(VOCABULARY)) if VOCABULARY in self.artifact.files else None

    def load_into(self, model: nn.Module, *, normalisation: str = "") -> LoadingReport:
        """Gives them to a model, fitted to its shapes; on the meta device only the report is made.

        Args:
            normalisation: of the images, in words, for the report.
        Raises:
            InputError: they are not weights of this architecture.
        """
        path = self.artifact.path(WEIGHTS)
        try:
            state = read_state(path)
        except ModelError as error:
            raise DamagedError(f"{error}; delete this artifact and run {STAGE} again") from None
        try:
            return load_state(model, state, self.name, normalisation=normalisation)
        except ModelError as error:
            raise InputError(f"pretrained: {error}") from None


def check_given(pretrained: str | None, weights: Artifact | None, field: str, name: str) -> StartingWeights | None:
    """The weights that a stage was given, which must be there if its config asks for them, and only then.

    Args:
        field: of the config, for the error.
        name: of the stage's input.
    """
    if (pretrained is None) == (weights is None):
        return None if weights is None else StartingWeights.open(weights)
    if weights is None:
        raise InputError(f"{field} is {pretrained!r}: give the artifact that {STAGE} makes of it as input {name!r}")
    raise InputError(f"{field} is not set, but there are weights to start from; set it, or leave {weights.uri} out")


def starting_report(
    config: ImageModelConfig, weights: Artifact | None, build: Callable[[], nn.Module]
) -> LoadingReport | None:
    """What will become of the weights that a classifier starts from; None if it starts from fresh ones.

    Args:
        build: gives the model, here without memory.
    Raises:
        InputError: they are not weights of this model, or the config and the inputs do not say the same.
    """
    starting = check_given(config.model.pretrained, weights, "model.pretrained", "weights")
    if starting is None:
        return None
    with torch.device("meta"):
        model = build()
    return starting.load_into(model, normalisation=config.normalisation)


def write_report(report: LoadingReport, folder: Path) -> None:
    """Keeps a report with the trained model, after those of its other parts."""
    with (folder / REPORT).open("a", encoding="utf-8") as file:
        file.write(f"{report}\n")
