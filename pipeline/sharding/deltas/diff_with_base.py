"""Compares the items of a source with an earlier listing: matches them by name, and detects changes by stamp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.progress import Progress
from pipeline.sharding.deltas.items_table import Listing
from pipeline.sharding.format.mapped_columns import NumbersFile
from pipeline.sharding.sources.base import Item
from pipeline.sharding.writing.item_hashes import remembered

_TELL_EVERY = 10_000
_SEARCHED = 1 << 18  # Items per batch.


@dataclass(frozen=True, eq=False)
class SourceNumbers:
    """Hashes of a source's items, see `remembered`; memory-mapped files, 24 bytes per item.

    Attributes:
        item, facts, stamp: [items] in source order.
    """

    item: NDArray[np.uint64]
    facts: NDArray[np.uint64]
    stamp: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def of(cls, items: Iterator[Item], total: int, progress: Progress, folder: Path) -> SourceNumbers:
        """Lists the items and writes their hashes to files in `folder`; reads no image."""
        place = 0
        with ExitStack() as opened:
            columns = {name: NumbersFile(folder / name, np.uint64, opened) for name in ("item", "facts", "stamp")}
            while some := [remembered(item) for item in islice(items, _TELL_EVERY)]:
                progress(step=place, total=total, note="comparing with the base")
                for name, column in columns.items():
                    column.add([numbers[name] for numbers in some])
                place += len(some)
        return cls(**{name: column.mapped() for name, column in columns.items()})


def matched(source: SourceNumbers, listing: Listing) -> NDArray[np.int64]:
    """[items] row of the listing with the same name; -1 for none.

    Of several items with the same name, the first matches the first, the second the second, and so on.
    """
    rank = _ranks(source.item)
    theirs = listing.numbers["item"]
    order = np.argsort(theirs, kind="stable")
    ascending = theirs[order]
    found = np.full(len(source), -1, dtype=np.int64)
    for start in range(0, len(source), _SEARCHED):
        some = slice(start, start + _SEARCHED)
        first = np.searchsorted(ascending, source.item[some], side="left")
        count = np.searchsorted(ascending, source.item[some], side="right") - first
        there = rank[some] < count
        found[some][there] = order[(first + rank[some])[there]]
    return found


def unchanged(
    source: SourceNumbers, listing: Listing, before: NDArray[np.int64], *, trust_names: bool
) -> NDArray[np.bool_]:
    """[items] whether name, metadata and stamp of an item are unchanged; no image is read.

    Args:
        before: see `matched`.
        trust_names: also treat an item without a stamp as unchanged.
    """
    numbers = listing.numbers
    same = (before >= 0) & (trust_names | (source.stamp != 0))
    at = before[same]
    same[same] = (numbers["facts"][at] == source.facts[same]) & (numbers["stamp"][at] == source.stamp[same])
    return same


def among(values: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """[values] whether each value is in `wanted`, which is ascending; `np.isin` would sort copies of both."""
    found = np.zeros(len(values), dtype=np.bool_)
    for start in range(0, len(values) if wanted.size else 0, _SEARCHED):
        some = values[start : start + _SEARCHED]
        at = np.minimum(np.searchsorted(wanted, some), len(wanted) - 1)
        found[start : start + _SEARCHED] = wanted[at] == some
    return found


def _ranks(values: NDArray[np.uint64]) -> NDArray[np.int32]:
    """[values] rank of each element among equal values: 0 for the first, 1 for the second, ..."""
    ranks = np.zeros(len(values), dtype=np.int32)
    ascending = np.sort(values)
    repeated = np.flatnonzero(among(values, np.unique(ascending[1:][ascending[1:] == ascending[:-1]])))
    del ascending
    order = repeated[np.argsort(values[repeated], kind="stable")]
    starts = np.flatnonzero(np.append(True, values[order][1:] != values[order][:-1])[: len(order)])
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return ranks
