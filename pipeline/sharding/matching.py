"""Which items of a source are those of an earlier listing: by name, and by the stamp whether the image is the same."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.progress import Progress
from pipeline.sharding.facts import remembered
from pipeline.sharding.listing import Listing
from pipeline.sharding.sources.base import Item

_TELL_EVERY = 10_000


@dataclass(frozen=True, eq=False)
class SourceNumbers:
    """The items of a source as numbers, see `remembered`; 24 bytes an item.

    Attributes:
        item, facts, stamp: [items] in the order of the source.
    """

    item: NDArray[np.uint64]
    facts: NDArray[np.uint64]
    stamp: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def of(cls, items: Iterator[Item], total: int, progress: Progress) -> SourceNumbers:
        """Lists the items; no image is read."""
        columns = {name: array("Q") for name in ("item", "facts", "stamp")}
        for place, item in enumerate(items):
            numbers = remembered(item)
            for name, column in columns.items():
                column.append(numbers[name])
            if place % _TELL_EVERY == 0:
                progress(step=place, total=total, note="comparing with the base")
        return cls(**{name: np.array(column, dtype=np.uint64) for name, column in columns.items()})


def matched(source: SourceNumbers, listing: Listing) -> NDArray[np.int64]:
    """[items] the place in the listing of the item with the same name; -1 for none.

    Of several items with one name the first goes with the first, the second with the second, and so on.
    """
    theirs = listing.numbers["item"]
    order = np.argsort(theirs, kind="stable")
    ascending = theirs[order]
    first = np.searchsorted(ascending, source.item, side="left")
    count = np.searchsorted(ascending, source.item, side="right") - first
    rank = _ranks(source.item)
    found = np.full(len(source), -1, dtype=np.int64)
    there = rank < count
    found[there] = order[(first + rank)[there]]
    return found


def unchanged(
    source: SourceNumbers, listing: Listing, before: NDArray[np.int64], *, trust_names: bool
) -> NDArray[np.bool_]:
    """[items] whether everything known of an item without reading it is as it was.

    Args:
        trust_names: an item without a stamp is believed, too.
    """
    numbers = listing.numbers
    same = (before >= 0) & (trust_names | (source.stamp != 0))
    at = before[same]
    same[same] = (numbers["facts"][at] == source.facts[same]) & (numbers["stamp"][at] == source.stamp[same])
    return same


def _ranks(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Whether each is the first (0), second (1), ... with its value."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    starts = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1])[: len(values)])
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))
    return ranks
