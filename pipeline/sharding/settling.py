"""What a base decides about the splits of a delta.

A sample of the base stays where it is. A new one goes to the split of its content group in the base; if the base does
not know the group, to that of an equal image in the base, and the rest of its group with it; an item whose image
changed stays in its split. What is left is open, and drawn as ever.

An image that the base has in one split, and whose group it has in another, is in neither: wherever it went, something
would be on both sides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.sharding.chunks import Columns
from pipeline.sharding.duplicates import DROPPED
from pipeline.sharding.split import Settled, SplitConfig, fixed_splits


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
    """What is settled for the samples of a delta.

    Args:
        splits: [samples] of those that the base stores, unchanged; DROPPED for the others.
        former: [samples] of those whose item the base stores with another image; DROPPED for the others.
        rank: [samples] see `Settled`.
        base: all samples that the base stores, those that are gone too.
        base_splits: [base] their splits.
        labels: how many labels the base has.
    """
    drawn = fixed_splits(base, config) == DROPPED
    mine, theirs = _codes(columns, base, by_image=True)
    of_content = _most_protected(theirs, base_splits, mine)
    unit_mine, unit_theirs = _codes(columns, base, by_image=config.rule == "image")
    of_unit = _most_protected(unit_theirs[drawn], base_splits[drawn], unit_mine)

    open_ = splits == DROPPED
    for known in (of_content, former):
        spread = _most_protected(unit_mine[open_], known[open_], unit_mine)
        of_unit = np.where(of_unit == DROPPED, spread, of_unit)
    settled = np.where(open_, of_unit, splits).astype(np.int8)
    barred = open_ & (of_content != DROPPED) & (settled != of_content)
    return Settled(settled, barred, rank, labels)


def _codes(one: Columns, other: Columns, *, by_image: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers from 0 for the samples of both: equal for one image, or for one content group."""
    first = np.concatenate([one.hash_high, other.hash_high] if by_image else [one.group_code, other.group_code])
    second = np.concatenate([one.hash_low, other.hash_low]) if by_image else np.zeros_like(first)
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    new = np.append(False, (first[1:] != first[:-1]) | (second[1:] != second[:-1]))[: len(first)]
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.cumsum(new)
    return codes[: len(one)], codes[len(one) :]


def _most_protected(codes: NDArray[np.int64], splits: NDArray[np.int8], wanted: NDArray[np.int64]) -> NDArray[np.int8]:
    """[wanted] the most protected split among the samples with each code; DROPPED where there is none."""
    count = int(max(codes.max(initial=-1), wanted.max(initial=-1))) + 1
    best = np.full(count, DROPPED, dtype=np.int8)
    np.maximum.at(best, codes, splits)
    return best[wanted]
