"""Finds a registered model by its URI, and predicts with it or with an exported model: `predict` and `zero-shot`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError, WorkError, first_line
from pipeline.owners import temporary_folder
from pipeline.registration.mlflow_registry import RegisteredVersion, Registry, model_uri_parts
from pipeline.service_url import without_credentials
from pipeline.training.tracking_uri import allow_long_transfers

if TYPE_CHECKING:
    from pipeline.exported_model import ExportedModel


@dataclass(frozen=True, slots=True)
class FailedPrediction:
    """An image without a prediction, and the reason in one line."""

    reason: str


def find_version(store: ArtifactStore, model_uri: str) -> tuple[Registry, RegisteredVersion]:
    """The version that models:/NAME@ALIAS or models:/NAME/VERSION names, and the registry that has it.

    Args:
        store: contains the registry, unless MLFLOW_TRACKING_URI names another registry.
    Raises:
        InputError: the URI has neither form, the registry cannot be used, or it has no such version.
    """
    model_uri_parts(model_uri)  # Refused before a registry is opened, which creates one if there is none.
    registry = Registry.open(store)
    return registry, registry.version_of(model_uri)


@dataclass(frozen=True, slots=True)
class Predictor:
    """A registered model in memory.

    Attributes:
        model: as MLflow loads it (mlflow.pyfunc).
        params: passed to every call of model.predict; None: no parameters.
    """

    model: Any
    params: dict[str, Any] | None

    def predict(self, images: Sequence[bytes]) -> list[dict[str, Any] | FailedPrediction]:
        """The predictions for encoded images: label and score of each, and the runners-up.

        Images that cannot be decoded do not affect the predictions for the others.
        """
        return _predictions(self.model, list(images), self.params)


def load_predictor(store: ArtifactStore, model_uri: str, *, prompts: Sequence[str] = ()) -> Predictor:
    """Loads a registered model.

    Args:
        store: contains the registry, unless MLFLOW_TRACKING_URI names another registry.
        model_uri: e.g. "models:/my-classifier@champion".
        prompts: texts that a dual encoder ranks; empty: it ranks its labels.
    Raises:
        InputError: there is no such model, the registry cannot be used, or the model ranks no prompts.
        WorkError: the model's files cannot be fetched or loaded.
    """
    registry, version = find_version(store, model_uri)
    mlflow.set_tracking_uri(registry.tracking_uri)
    try:
        # Without the check of the installed packages, which takes 1 s, since it reads the file list of every package.
        with allow_long_transfers():
            model = mlflow.pyfunc.load_model(version.uri, suppress_warnings=True)
    except MlflowException as error:
        raise InputError(f"{model_uri}: cannot be looked up ({without_credentials(first_line(error))})") from None
    except Exception as error:  # Anything that MLflow's stores, torch or the disk raise while the files are loaded.
        raise WorkError(
            f"{model_uri}: cannot be loaded ({without_credentials(first_line(error))}); restore its files in MLflow"
        ) from error
    return _predictor(model, model_uri, prompts)


def predictor_of(exported: ExportedModel, name: str, *, prompts: Sequence[str] = ()) -> Predictor:
    """Loads an exported model as it would be registered, so that the answers are those of its registered version.

    Args:
        name: of the model, for messages.
        prompts: texts that a dual encoder ranks; empty: it ranks its labels.
    Raises:
        InputError: the model ranks no prompts.
    """
    from pipeline.registration.package import write_package

    with temporary_folder() as folder:
        package = Path(folder) / "model"
        write_package(exported, package)
        return _predictor(mlflow.pyfunc.load_model(str(package), suppress_warnings=True), name, prompts)


def _predictor(model: Any, name: str, prompts: Sequence[str]) -> Predictor:
    schema = model.metadata.get_params_schema()
    if prompts and "prompts" not in {param.name for param in (schema.params if schema is not None else ())}:
        raise InputError(f"{name}: a classifier, which ranks no prompts; ask it by `tutelage predict`")
    return Predictor(model, {"prompts": list(prompts)} if prompts else None)


def _predictions(
    model: Any, images: list[bytes], params: dict[str, Any] | None
) -> list[dict[str, Any] | FailedPrediction]:
    """Predicts for all images at once; after an error, for each half, down to the single images that cause it."""
    if not images:
        return []
    try:
        answers: list[dict[str, Any] | FailedPrediction] = model.predict(images, params=params).to_dict("records")
    except Exception as error:  # A decoder may raise anything for a damaged image.
        if len(images) == 1:
            return [FailedPrediction(re.sub(r"^image \d+ of \d+ \(\d+ bytes\) ", "", first_line(error)))]
        middle = len(images) // 2
        return [*_predictions(model, images[:middle], params), *_predictions(model, images[middle:], params)]
    return answers
