"""RowRuns: a set of sample ids, stored as runs of consecutive ids: its memory grows with the runs, not the rows.

Shards hold one split each and ids follow the shards, so the rows of a split are a few long runs: the train split of
100 million samples is one pair of numbers here and 800 MB as an array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows scanned at a time; bounds the memory of a scan to 4 MB.
_SCAN_ROWS = 1 << 19


class RowRuns:
    """Ascending ids as half-open runs; position p is the p-th smallest id.

    Args:
        starts, stops: int64 [R], runs [start, stop), not empty, ascending, without overlap.
    """

    def __init__(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        self.starts = np.asarray(starts, dtype=np.int64)
        self.stops = np.asarray(stops, dtype=np.int64)
        if (self.stops <= self.starts).any() or (self.starts[1:] < self.stops[:-1]).any():
            raise ValueError("runs must be non-empty, ascending and without overlap")
        self._ends: NDArray[np.int64] = np.cumsum(self.stops - self.starts)

    @classmethod
    def of_rows(cls, rows: NDArray[np.int64]) -> RowRuns:
        """The runs of ascending, distinct ids.

        Raises:
            ValueError: they are not ascending and distinct.
        """
        if len(rows) == 0:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64))
        steps = np.diff(rows)
        if (steps <= 0).any():
            raise ValueError("the ids must be ascending and distinct")
        breaks = np.flatnonzero(steps != 1)
        return cls(rows[np.r_[0, breaks + 1]], rows[np.r_[breaks, len(rows) - 1]] + 1)

    @classmethod
    def where(cls, rows: int, *conditions: tuple[NDArray[Any], Any, bool]) -> RowRuns:
        """The ids of [0, rows) that meet all conditions, found without an array of `rows` entries.

        Args:
            conditions: (column [rows], value, equal): the column equals the value, or differs from it (equal=False).
        """
        starts: list[NDArray[np.int64]] = []
        stops: list[NDArray[np.int64]] = []
        for first in range(0, rows, _SCAN_ROWS):
            last = min(first + _SCAN_ROWS, rows)
            matches = np.ones(last - first + 2, dtype=bool)
            matches[0] = matches[-1] = False
            for column, value, equal in conditions:
                matches[1:-1] &= (column[first:last] == value) if equal else (column[first:last] != value)
            edges = np.flatnonzero(matches[1:] != matches[:-1]) + first
            starts.append(edges[::2])
            stops.append(edges[1::2])
        return _merge_adjacent(_concatenate(starts), _concatenate(stops))

    def filter(self, condition: Callable[[int, int], NDArray[np.bool_]]) -> RowRuns:
        """The ids that also meet a condition, evaluated for a block of rows at a time.

        Args:
            condition: condition(first, last) returns which of the rows [first, last) meet it, bool [last - first].
        """
        starts: list[NDArray[np.int64]] = []
        stops: list[NDArray[np.int64]] = []
        for first, length in zip(*self.blocks(_SCAN_ROWS), strict=True):
            inside = np.r_[False, condition(int(first), int(first + length)), False]
            edges = np.flatnonzero(inside[1:] != inside[:-1]) + first
            starts.append(edges[::2])
            stops.append(edges[1::2])
        return _merge_adjacent(_concatenate(starts), _concatenate(stops))

    def within(self, first: int, last: int) -> RowRuns:
        """The ids in [first, last)."""
        starts, stops = np.maximum(self.starts, first), np.minimum(self.stops, last)
        return RowRuns(starts[starts < stops], stops[starts < stops])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def ids(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids at these positions, [n] to int64 [n]."""
        run = np.searchsorted(self._ends, positions, side="right")
        ids: NDArray[np.int64] = self.stops[run] - (self._ends[run] - positions)
        return ids

    def all(self) -> NDArray[np.int64]:
        """All ids as an array, int64 [N]."""
        return self.ids(np.arange(len(self), dtype=np.int64))

    def blocks(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The runs cut into pieces of `size` ids at most: first ids and lengths, each int64 [blocks]."""
        pieces = -(-(self.stops - self.starts) // size)
        number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        first = np.repeat(self.starts, pieces) + number * size
        return first, np.minimum(np.repeat(self.stops, pieces) - first, size)


def _merge_adjacent(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> RowRuns:
    """Merges runs that touch at the border of two scanned blocks."""
    apart = np.r_[True, starts[1:] != stops[:-1]] if len(starts) else np.empty(0, bool)
    return RowRuns(starts[apart], stops[np.r_[apart[1:], True]] if len(stops) else stops)


def _concatenate(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(arrays) if arrays else np.empty(0, np.int64)
