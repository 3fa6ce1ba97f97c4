"""The samples of a linear probe: a bounded number, drawn evenly over the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.counter_rng import uniforms
from pipeline.errors import InputError

_DRAWN_PER_HELD_OUT = 5  # without a val split, one of 5 drawn samples is held out


@dataclass(frozen=True)
class ProbeSamples:
    """The samples of a linear probe: ids in ascending order.

    Attributes:
        train: the samples on which the probe is fitted.
        validation: those by which its penalty is chosen.
        held_out: `validation` is held out of the train split, because there is no val split.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    held_out: bool = False


def draw_samples(
    rows: NDArray[np.int64],
    labels: NDArray[np.integer[Any]],
    validation: NDArray[np.int64],
    limit: int | None,
    seed: int,
) -> ProbeSamples:
    """Draws at most `limit` training samples, evenly over the classes, and at most `limit` validation samples.

    Args:
        rows: ids of the training samples.
        labels: their labels.
        validation: ids of the val split; without any, a fifth of the drawn training samples is held out.
    Raises:
        InputError: there is no val split, and no class has two samples.
    """
    numbers = uniforms(seed, "linear-probe", 0, rows, 2)
    ranks = _ranks_in_class(labels, numbers[:, 0])
    # First one sample of every class, then a second one of every class that has two, and so on.
    drawn = np.lexsort((numbers[:, 0], ranks))[:limit]
    if len(validation):
        chosen = np.argsort(uniforms(seed, "linear-probe-val", 0, validation, 1)[:, 0])[:limit]
        return ProbeSamples(np.sort(rows[drawn]), np.sort(validation[chosen]))
    spare = drawn[ranks[drawn] > 0]  # every class keeps its first sample
    if len(spare) == 0:
        raise InputError(
            "linear-probe: the data have no val split, and no class has two training samples to hold one out; shard "
            "with split.val_share above 0, or set baseline=null"
        )
    held_out = spare[np.argsort(numbers[spare, 1])][: max(1, len(drawn) // _DRAWN_PER_HELD_OUT)]
    return ProbeSamples(np.sort(rows[np.setdiff1d(drawn, held_out)]), np.sort(rows[held_out]), held_out=True)


def _ranks_in_class(labels: NDArray[np.integer[Any]], numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """The position of each sample among those of its class, ordered by their numbers."""
    order = np.lexsort((numbers, labels))
    sorted_labels = labels[order]
    starts = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]])
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.repeat(starts, np.diff(np.r_[starts, len(labels)]))
    return ranks
