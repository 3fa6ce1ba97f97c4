"""Sets of images with equal bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class EqualSets:
    """Sets of two or more images with equal bytes.

    Attributes:
        rows: [images in sets] rows of the images, set by set, ascending within a set.
        starts: [sets] the start of each set in `rows`.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of_hashes(cls, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> EqualSets:
        """The sets of equal content hashes; `high` and `low` are the halves of the hashes, each [rows]."""
        # Nearly all hashes differ in their first half, and sorting one column is fastest.
        order = np.argsort(high)
        rows = np.sort(order[_in_run(high[order])])
        rows = rows[np.lexsort((low[rows], high[rows]))]
        same = (high[rows[1:]] == high[rows[:-1]]) & (low[rows[1:]] == low[rows[:-1]])
        equals_previous = np.append(False, same)[: len(rows)]
        member = equals_previous | np.append(same, False)[: len(rows)]
        return cls(rows[member], np.flatnonzero(~equals_previous[member]))

    @classmethod
    def of_codes(cls, codes: NDArray[np.int64]) -> EqualSets:
        """The sets of equal codes, [rows]: equal bytes have equal codes; -1: an image that is known to be unique."""
        some = np.flatnonzero(codes >= 0)
        sets = cls.of_hashes(codes[some].astype(np.uint64), np.zeros(len(some), dtype=np.uint64))
        return cls(some[sets.rows], sets.starts)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """[sets] number of images in each set."""
        return np.diff(np.append(self.starts, len(self.rows)))

    @property
    def copies(self) -> int:
        """Number of images that could be dropped without losing a distinct image."""
        return len(self.rows) - len(self.starts)

    def have_different(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """[sets] whether the images of a set have different values, of `values` [rows]."""
        if not len(self):
            return np.zeros(0, dtype=np.bool_)
        row_values = values[self.rows]
        lowest, highest = np.minimum.reduceat(row_values, self.starts), np.maximum.reduceat(row_values, self.starts)
        return np.asarray(lowest != highest)


def _in_run(ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """[values] whether a value is equal to a neighbour."""
    same = ascending[1:] == ascending[:-1]
    return (np.append(False, same) | np.append(same, False))[: len(ascending)]
