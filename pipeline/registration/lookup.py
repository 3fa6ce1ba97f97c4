"""Looks a registered model up and asks it: what `tutelage predict` and `tutelage zero-shot` do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError
from pipeline.training.tracking import ensure_tracking


def ask_model(
    store: ArtifactStore, model_uri: str, images: Sequence[bytes], *, prompts: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What a registered model says of encoded images: label and score of each, and those that come next.

    Args:
        store: names the registry if MLFLOW_TRACKING_URI does not.
        model_uri: e.g. "models:/emoji-classifier@champion".
        prompts: texts to rank, for a dual encoder; none: its labels.
    Raises:
        InputError: there is no such model, or an image cannot be decoded.
    """
    mlflow.set_tracking_uri(ensure_tracking(store))
    try:
        # Without its look at the packages that are installed: 1 s, since it reads the file list of every one.
        model = mlflow.pyfunc.load_model(model_uri, suppress_warnings=True)
    except MlflowException as error:
        raise InputError(f"{model_uri}: cannot be looked up ({str(error).splitlines()[0]})") from None
    try:
        answers = model.predict(list(images), params={"prompts": list(prompts)} if prompts else None)
    except (ValueError, MlflowException) as error:
        raise InputError(f"{model_uri}: {str(error).splitlines()[0]}") from None
    rows: list[dict[str, Any]] = answers.to_dict("records")
    return rows
