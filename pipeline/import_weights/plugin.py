"""Lets `create_model(pretrained=...)` open sources that only the pipeline knows: entry points of "tutelage.weights".

TUTELAGE_STORE names the store, MLFLOW_TRACKING_URI the registry; by default the registry inside the store is used.
"""

from __future__ import annotations

from pathlib import Path

from model_defs import ModelError
from pipeline.artifacts import ArtifactStore
from pipeline.errors import TutelageError
from pipeline.import_weights.sources import find_weights, locate_weights


def registered_model(reference: str) -> Path:
    """The weights of models:REFERENCE, where REFERENCE is /NAME@alias or /NAME/VERSION."""
    return _open(f"models:{reference}")


def artifact(reference: str) -> Path:
    """The weights of the exported model STAGE/KEY."""
    return _open(f"artifact:{reference}")


def _open(source: str) -> Path:
    try:
        return locate_weights(find_weights(source, ArtifactStore.open()))
    except TutelageError as error:
        raise ModelError(str(error)) from None
