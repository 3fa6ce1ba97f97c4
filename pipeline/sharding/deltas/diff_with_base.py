"""Compares the items of a source with an earlier listing: matches them by name, and detects changes by stamp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.progress import Progress
from pipeline.sharding.deltas.items_table import Listing
from pipeline.sharding.format.mapped_columns import NumbersFile
from pipeline.sharding.sources.base import Item
from pipeline.sharding.writing.item_hashes import item_hashes

_REPORT_EVERY = 10_000
_BATCH_ITEMS = 1 << 18


@dataclass(frozen=True, eq=False)
class ItemHashes:
    """Hashes of a source's items, see `item_hashes`; memory-mapped files, 24 bytes per item.

    Attributes:
        name_hash, metadata_hash, stamp_hash: [items] in source order.
    """

    name_hash: NDArray[np.uint64]
    metadata_hash: NDArray[np.uint64]
    stamp_hash: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.name_hash)

    @classmethod
    def of(cls, items: Iterator[Item], total: int, progress: Progress, folder: Path) -> ItemHashes:
        """Lists the items and writes their hashes to files in `folder`; reads no image."""
        done = 0
        names = [field.name for field in fields(cls)]
        with ExitStack() as open_files:
            columns = {name: NumbersFile(folder / name, np.uint64, open_files) for name in names}
            while batch := [item_hashes(item) for item in islice(items, _REPORT_EVERY)]:
                progress(step=done, total=total, note="comparing with the base")
                for name, column in columns.items():
                    column.add([hashes[name] for hashes in batch])
                done += len(batch)
        return cls(**{name: column.finish() for name, column in columns.items()})


def match_by_name(source: ItemHashes, listing: Listing) -> NDArray[np.int64]:
    """[items] row of the listing with the same name; -1 for none.

    Of several items with the same name, the first matches the first, the second the second, and so on.
    """
    rank = _ranks(source.name_hash)
    listed = listing.numbers["name_hash"]
    order = np.argsort(listed, kind="stable")
    ascending = listed[order]
    base_rows = np.full(len(source), -1, dtype=np.int64)
    for start in range(0, len(source), _BATCH_ITEMS):
        some = slice(start, start + _BATCH_ITEMS)
        first = np.searchsorted(ascending, source.name_hash[some], side="left")
        count = np.searchsorted(ascending, source.name_hash[some], side="right") - first
        is_listed = rank[some] < count
        base_rows[some][is_listed] = order[(first + rank[some])[is_listed]]
    return base_rows


def find_unchanged(
    source: ItemHashes, listing: Listing, base_rows: NDArray[np.int64], *, trust_names: bool
) -> NDArray[np.bool_]:
    """[items] whether name, metadata and stamp of an item are unchanged; no image is read.

    Args:
        base_rows: see `match_by_name`.
        trust_names: also treat an item without a stamp as unchanged.
    """
    numbers = listing.numbers
    same = (base_rows >= 0) & (trust_names | (source.stamp_hash != 0))
    rows = base_rows[same]
    same[same] = (numbers["metadata_hash"][rows] == source.metadata_hash[same]) & (
        numbers["stamp_hash"][rows] == source.stamp_hash[same]
    )
    return same


def isin_sorted(values: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """[values] whether each value is in `wanted`, which is ascending; `np.isin` would sort copies of both."""
    is_wanted = np.zeros(len(values), dtype=np.bool_)
    for start in range(0, len(values) if wanted.size else 0, _BATCH_ITEMS):
        some = values[start : start + _BATCH_ITEMS]
        nearest = np.minimum(np.searchsorted(wanted, some), len(wanted) - 1)
        is_wanted[start : start + _BATCH_ITEMS] = wanted[nearest] == some
    return is_wanted


def _ranks(values: NDArray[np.uint64]) -> NDArray[np.int32]:
    """[values] rank of each element among equal values: 0 for the first, 1 for the second, ..."""
    ranks = np.zeros(len(values), dtype=np.int32)
    ascending = np.sort(values)
    repeated = np.flatnonzero(isin_sorted(values, np.unique(ascending[1:][ascending[1:] == ascending[:-1]])))
    del ascending
    order = repeated[np.argsort(values[repeated], kind="stable")]
    starts = np.flatnonzero(np.append(True, values[order][1:] != values[order][:-1])[: len(order)])
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return ranks
