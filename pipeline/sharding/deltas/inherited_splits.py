"""The splits of a delta that its base determines.

A sample of the base stays in its split. A new sample goes to the split of its content group in the base; if the base
does not have the group, to the split of an equal image in the base, with the rest of its group; an item with a changed
image stays in its split. The other samples are undecided and assigned by hash.

An image that the base has in one split, with its content group in another, is dropped: in either split it would leak
into the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.sharding.deltas.diff_with_base import among
from pipeline.sharding.writing.chunks import Columns
from pipeline.sharding.writing.duplicates import DROPPED
from pipeline.sharding.writing.split import Settled, fixed_splits
from pipeline.sharding.writing.split_config import SplitConfig


def settle(
    columns: Columns,
    config: SplitConfig,
    *,
    splits: NDArray[np.int8],
    former: NDArray[np.int8],
    rank: NDArray[np.int8],
    base: Columns,
    base_splits: NDArray[np.int8],
    labels: int,
) -> Settled:
    """The splits of a delta's samples that the base determines.

    Args:
        splits: [samples] split of samples that the base stores, unchanged; DROPPED for the others.
        former: [samples] split of samples that the base stores with another image; DROPPED for the others.
        rank: [samples] see `Settled`.
        base: all samples that the base stores, including those that are gone.
        base_splits: [base] their splits.
        labels: number of labels of the base.
    """
    of_image, of_group = (("hash_high", "hash_low"), ("group_code",))
    of_unit = of_image if config.rule == "image" else of_group
    open_ = np.flatnonzero(splits == DROPPED)
    drawn = fixed_splits(base, config) == DROPPED

    content = _of_equals(columns, open_, base, base_splits, of_image)
    unit = _of_equals(columns, open_, base, np.where(drawn, base_splits, np.int8(DROPPED)), of_unit)
    for known in (content, former[open_]):
        spread = _of_equals(columns, open_, columns, _scattered(len(columns), open_, known), of_unit)
        unit = np.where(unit == DROPPED, spread, unit)
    settled = splits.copy()
    settled[open_] = unit
    barred = np.zeros(len(columns), dtype=np.bool_)
    barred[open_] = (content != DROPPED) & (unit != content)
    return Settled(settled, barred, rank, labels)


def _of_equals(
    columns: Columns, rows: NDArray[np.int64], known: Columns, splits: NDArray[np.int8], names: tuple[str, ...]
) -> NDArray[np.int8]:
    """[rows] the most protected split of the samples of `known` with equal values in columns `names`; DROPPED: none.

    Args:
        splits: [known] splits of the samples of `known`.
    """
    mine = [getattr(columns, name)[rows] for name in names]
    # Usually `rows` are few and `known` are many: only candidates with an equal first column are compared.
    at = np.flatnonzero((splits != DROPPED) & among(getattr(known, names[0]), np.unique(mine[0])))
    both = [np.concatenate([one, getattr(known, name)[at]]) for name, one in zip(names, mine, strict=True)]
    order = np.lexsort(both[::-1])
    new = np.zeros(len(order), dtype=np.bool_)
    for column in both:
        ascending = column[order]
        new[1:] |= ascending[1:] != ascending[:-1]
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.cumsum(new)
    best = np.full(int(codes.max(initial=-1)) + 1, DROPPED, dtype=np.int8)
    np.maximum.at(best, codes[len(rows) :], splits[at])
    return best[codes[: len(rows)]]


def _scattered(count: int, rows: NDArray[np.int64], splits: NDArray[np.int8]) -> NDArray[np.int8]:
    """[count] `splits` at `rows`, DROPPED elsewhere."""
    whole = np.full(count, DROPPED, dtype=np.int8)
    whole[rows] = splits
    return whole
