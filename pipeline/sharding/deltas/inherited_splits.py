"""The splits of a delta that its base determines.

A sample of the base stays in its split. A new sample goes to the split of its content group in the base. If the base
does not have the group, the whole group goes to the split of an image in the base that equals one of its images, or of
an item whose image changed. The splits of the other samples are drawn.

If the base has an image in one split and its content group in another, a new sample with both is dropped: in either
split it would leak into the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.sharding.deltas.diff_with_base import isin_sorted
from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.duplicates import DROPPED
from pipeline.sharding.writing.split import InheritedSplits, fixed_splits
from pipeline.sharding.writing.split_config import SplitConfig


def inherit_splits(
    columns: PlanColumns,
    config: SplitConfig,
    *,
    splits: NDArray[np.int8],
    former: NDArray[np.int8],
    rank: NDArray[np.int8],
    base: PlanColumns,
    base_splits: NDArray[np.int8],
    labels: int,
) -> InheritedSplits:
    """The splits of a delta's samples that the base determines.

    Args:
        splits: [samples] split of samples that the base stores, unchanged; DROPPED for the others.
        former: [samples] split of samples that the base stores with another image; DROPPED for the others.
        rank: [samples] see `InheritedSplits`.
        base: all samples that the base stores, including those that the source no longer has.
        base_splits: [base] their splits.
        labels: number of labels of the base.
    """
    image_hash_names, group_hash_names = (("hash_high", "hash_low"), ("group_hash",))
    unit_hash_names = image_hash_names if config.rule == "image" else group_hash_names
    undecided = np.flatnonzero(splits == DROPPED)
    drawn = fixed_splits(base, config) == DROPPED

    content = _splits_of_equals(columns, undecided, base, base_splits, image_hash_names)
    unit = _splits_of_equals(columns, undecided, base, np.where(drawn, base_splits, np.int8(DROPPED)), unit_hash_names)
    for known in (content, former[undecided]):
        spread = _splits_of_equals(
            columns, undecided, columns, _scatter(len(columns), undecided, known), unit_hash_names
        )
        unit = np.where(unit == DROPPED, spread, unit)
    inherited = splits.copy()
    inherited[undecided] = unit
    barred = np.zeros(len(columns), dtype=np.bool_)
    barred[undecided] = (content != DROPPED) & (unit != content)
    return InheritedSplits(inherited, barred, rank, labels)


def _splits_of_equals(
    columns: PlanColumns, rows: NDArray[np.int64], known: PlanColumns, splits: NDArray[np.int8], names: tuple[str, ...]
) -> NDArray[np.int8]:
    """[rows] the most protected split of the samples of `known` with equal values in columns `names`; DROPPED: none.

    Args:
        splits: [known] splits of the samples of `known`.
    """
    values = [getattr(columns, name)[rows] for name in names]
    # Usually `rows` are few and `known` are many: only candidates with an equal first column are compared.
    candidates = np.flatnonzero((splits != DROPPED) & isin_sorted(getattr(known, names[0]), np.unique(values[0])))
    both = [
        np.concatenate([column, getattr(known, name)[candidates]]) for name, column in zip(names, values, strict=True)
    ]
    order = np.lexsort(both[::-1])
    new = np.zeros(len(order), dtype=np.bool_)
    for column in both:
        ascending = column[order]
        new[1:] |= ascending[1:] != ascending[:-1]
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.cumsum(new)
    best = np.full(int(codes.max(initial=-1)) + 1, DROPPED, dtype=np.int8)
    np.maximum.at(best, codes[len(rows) :], splits[candidates])
    return best[codes[: len(rows)]]


def _scatter(count: int, rows: NDArray[np.int64], splits: NDArray[np.int8]) -> NDArray[np.int8]:
    """[count] `splits` at `rows`, DROPPED elsewhere."""
    scattered = np.full(count, DROPPED, dtype=np.int8)
    scattered[rows] = splits
    return scattered
