"""The weight of each class in the loss, from the configuration and the training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from pipeline.config import added
from pipeline.errors import InputError, UnknownNameError


def _check_weights(value: Any) -> Any:
    """Validates the raw value: pydantic's own check would report one error for each member of the union."""
    if value in ("none", "balanced"):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("give none, balanced or weights by label such as {cat: 2}")
    for label, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1e6:
            raise ValueError(f"the weight of {label} must be a number from 0 to 1,000,000, not {weight!r}")
    return value


ClassWeights = Annotated[
    Literal["none", "balanced"] | dict[str, Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]],
    BeforeValidator(_check_weights),
]


def class_weights_field() -> Any:
    """The field `class_weights` of the training of a classifier."""
    return added(
        "none",
        description="Weight of a sample in the loss, by its label. none: 1 for all; balanced: in inverse proportion to "
        "the number of training samples with the label, on average 1; or weights by label, e.g. {cat: 2}, with 1 for "
        "all other labels. For rare labels, policy={kind: class-balanced} is usually better: it draws them more often, "
        "each time with another augmentation, while a large weight makes steps uneven. Use one of the two.",
    )


def class_weights(
    config: ClassWeights, labels: NDArray[np.integer[Any]], names: Sequence[str]
) -> NDArray[np.float32] | None:
    """The weight of each of K classes, float32 [K]; None for "none".

    Args:
        labels: the labels of all training samples.
        names: the K class names.
    Raises:
        InputError: a weight is for an unknown label, or the weights of all training samples are 0.
    """
    if config == "none":
        return None
    counts = np.bincount(labels, minlength=len(names))
    if isinstance(config, Mapping):
        for name in config:
            if name not in names:
                raise UnknownNameError("class_weights: label", name, names)
        weights = np.array([config.get(name, 1.0) for name in names])
        if not (weights * counts).any():
            raise InputError("class_weights: the weights of all training samples are 0; set one above 0")
    else:
        # N / (K' n): the mean over the N samples is 1, since K' classes have samples.
        weights = len(labels) / np.count_nonzero(counts) / np.maximum(counts, 1)
    return weights.astype(np.float32)
