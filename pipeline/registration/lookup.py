"""Finds a registered model by its name, and asks it, as `tutelage predict` and `tutelage zero-shot` do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError, WorkError, first_line
from pipeline.registration.mlflow_registry import RegisteredVersion, Registry, model_uri_parts
from pipeline.service_url import without_credentials
from pipeline.training.tracking_uri import patient_transfers


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """An image that a model cannot answer for, and why, in one line."""

    reason: str


def find_version(store: ArtifactStore, model_uri: str) -> tuple[Registry, RegisteredVersion]:
    """The version that models:/NAME@ALIAS or models:/NAME/VERSION names, and the registry that has it.

    Args:
        store: has the registry in it unless MLFLOW_TRACKING_URI names another.
    Raises:
        InputError: the URI is of neither form, the registry cannot be used, or it has no such version.
    """
    model_uri_parts(model_uri)  # Refused before a registry is opened, which creates one if there is none.
    registry = Registry.open(store)
    return registry, registry.named(model_uri)


def ask_model(
    store: ArtifactStore, model_uri: str, images: Sequence[bytes], *, prompts: Sequence[str] = ()
) -> list[dict[str, Any] | NoAnswer]:
    """What a registered model says of encoded images: label and score of each, and those that come next.

    An image that cannot be answered for does not cost the others their answers.

    Args:
        store: names the registry if MLFLOW_TRACKING_URI does not.
        model_uri: e.g. "models:/emoji-classifier@champion".
        prompts: texts to rank, for a dual encoder; none: its labels.
    Raises:
        InputError: there is no such model, the registry cannot be used, or the model ranks no prompts.
        WorkError: the model's files cannot be fetched or loaded.
    """
    registry, version = find_version(store, model_uri)
    mlflow.set_tracking_uri(registry.tracking_uri)
    try:
        # Without its look at the packages that are installed: 1 s, since it reads the file list of every one.
        with patient_transfers():
            model = mlflow.pyfunc.load_model(version.uri, suppress_warnings=True)
    except MlflowException as error:
        raise InputError(f"{model_uri}: cannot be looked up ({without_credentials(first_line(error))})") from None
    except Exception as error:  # Whatever fetching and loading the files raises: of MLflow's stores, torch, the disk.
        raise WorkError(
            f"{model_uri}: cannot be loaded ({without_credentials(first_line(error))}); restore its files in MLflow"
        ) from error
    schema = model.metadata.get_params_schema()
    if prompts and "prompts" not in {param.name for param in (schema.params if schema is not None else ())}:
        raise InputError(f"{model_uri}: a classifier, which ranks no prompts; ask it by `tutelage predict`")
    return _answers(model, list(images), {"prompts": list(prompts)} if prompts else None)


def _answers(model: Any, images: list[bytes], params: dict[str, Any] | None) -> list[dict[str, Any] | NoAnswer]:
    """Asks for all at once; a refusal is halved until the images that cause it are alone."""
    if not images:
        return []
    try:
        answers: list[dict[str, Any] | NoAnswer] = model.predict(images, params=params).to_dict("records")
    except Exception as error:  # Whatever a decoder raises is that image's fault.
        if len(images) == 1:
            return [NoAnswer(re.sub(r"^image \d+ of \d+ \(\d+ bytes\) ", "", first_line(error)))]
        middle = len(images) // 2
        return [*_answers(model, images[:middle], params), *_answers(model, images[middle:], params)]
    return answers
