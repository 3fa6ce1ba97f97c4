"""Sets of images with equal bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class EqualSets:
    """The images whose bytes another image has too.

    Attributes:
        rows: [images in sets] set by set, each in the order of the rows.
        starts: [sets] where each set starts in `rows`.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of_hashes(cls, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> EqualSets:
        """The sets by a content hash in two numbers, [rows] each."""
        # Nearly all hashes differ in their first half already, and sorting one column is the fastest.
        order = np.argsort(high)
        rows = np.sort(order[_in_run(high[order])])
        rows = rows[np.lexsort((low[rows], high[rows]))]
        same = (high[rows[1:]] == high[rows[:-1]]) & (low[rows[1:]] == low[rows[:-1]])
        with_former = np.append(False, same)[: len(rows)]
        member = with_former | np.append(same, False)[: len(rows)]
        return cls(rows[member], np.flatnonzero(~with_former[member]))

    @classmethod
    def of_codes(cls, codes: NDArray[np.int64]) -> EqualSets:
        """The sets by a number that is equal where the bytes are; -1 for an image that is known to be the only one."""
        some = np.flatnonzero(codes >= 0)
        sets = cls.of_hashes(codes[some].astype(np.uint64), np.zeros(len(some), dtype=np.uint64))
        return cls(some[sets.rows], sets.starts)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """[sets] how many images each has."""
        return np.diff(np.append(self.starts, len(self.rows)))

    @property
    def copies(self) -> int:
        """How many images could go without an image being lost."""
        return len(self.rows) - len(self.starts)

    def differ(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """[sets] whether a set's images differ in a value.

        Args:
            values: [all rows].
        """
        if not len(self):
            return np.zeros(0, dtype=np.bool_)
        of_rows = values[self.rows]
        differ: NDArray[np.bool_] = np.minimum.reduceat(of_rows, self.starts) != np.maximum.reduceat(
            of_rows, self.starts
        )
        return differ


def _in_run(ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which values are equal to a neighbour."""
    same = ascending[1:] == ascending[:-1]
    return (np.append(False, same) | np.append(same, False))[: len(ascending)]
