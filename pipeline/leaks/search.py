"""The search: for each evaluation image the training images that are the same, or nearly so.

Images with equal pixels are one picture, and pictures are searched, not images: a placeholder that is there ten
thousand times costs no more than one that is there once. Near hashes give candidates, the second look decides. Only
the best few pictures of each evaluation picture are kept, so memory is bounded by what is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.leaks.gathering import Looks
from pipeline.leaks.look import State, difference
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.perceptual import pairs_between

_MOST_KEPT = 1 << 21  # pairs of pictures, before only the best of each evaluation picture are kept


class Kind(IntEnum):
    """How an evaluation image was found in the training data, the worst first."""

    EXACT = 0  # the same bytes
    PIXELS = 1  # the same pixels in other bytes: encoded anew without loss
    NEAR = 2  # it looks the same


KINDS = tuple(kind.name.lower() for kind in Kind)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set with its looks.

    Attributes:
        content: [rows, 2] content hashes.
    """

    index: SampleIndex
    looks: Looks
    content: NDArray[np.uint64]


@dataclass(frozen=True)
class Match:
    """A training image that an evaluation image was found to be.

    Attributes:
        distance: in how many of the 64 bits their difference hashes differ.
        difference: of their second looks, 0 for equal pixels and at most 1.
    """

    kind: Kind
    evaluation: int
    train: int
    distance: int = 0
    difference: float = 0.0

    @property
    def rank(self) -> tuple[int, float, int]:
        """The worst first; the second look sees more than the hash."""
        return self.kind, self.difference, self.distance


@dataclass(frozen=True, eq=False)
class Found:
    """What a search came to.

    Attributes:
        matches: evaluation row -> its matches, the worst first, as many as were asked for.
        counts: evaluation row -> how many training images it was found to be, listed or not.
    """

    matches: dict[int, list[Match]]
    counts: dict[int, int]


def find_leaks(
    train: DataSet,
    train_rows: NDArray[np.int64],
    evaluation: DataSet,
    evaluation_rows: NDArray[np.int64],
    *,
    radius: int,
    allowed: float,
    listed: int,
    compared: Callable[[int], None] = lambda count: None,
) -> Found:
    """Looks for evaluation images among training images.

    Args:
        train_rows, evaluation_rows: [n] rows of the two data sets, which may be one.
        radius: how many bits of two hashes may differ for a second look.
        allowed: how far the second looks may be apart, see `difference`.
        listed: matches of an evaluation image that are given, at most.
        compared: told now and then how many pairs had a second look.
    """
    seen, asked = _Pictures.of(train, train_rows), _Pictures.of(evaluation, evaluation_rows)
    same = _equal_pictures(seen, asked)
    near = _Nearest(len(asked), listed, np.diff(seen.starts))
    count = 0
    for left, right, distance in _candidates(seen, asked, radius):
        differ = same[right] != left
        left, right, distance = left[differ], right[differ], distance[differ]
        apart = difference(train.looks.at(seen.first[left]), evaluation.looks.at(asked.first[right]), allowed)
        alike = apart <= 1
        near.add(right[alike], left[alike], distance[alike], apart[alike])
        count += len(left)
        compared(count)
    near.prune()
    matches: dict[int, list[Match]] = {}
    counts: dict[int, int] = {}
    of_picture = near.by_picture()
    for picture in np.union1d(np.flatnonzero(same >= 0), near.pictures()).tolist():
        twin = int(same[picture])
        equal = seen.rows_of(twin) if twin >= 0 else np.empty(0, dtype=np.int64)
        for row in asked.rows_of(picture).tolist():
            counts[row] = len(equal) + int(near.counts[picture])
            found = _equal_matches(train, evaluation, row, equal, listed)
            for other, bits, difference_of_looks in of_picture.get(picture, ()):
                more = seen.rows_of(other)[: max(listed - len(found), 0)].tolist()
                found += [Match(Kind.NEAR, row, train_row, bits, difference_of_looks) for train_row in more]
            matches[row] = found
    return Found(matches, counts)


def _equal_matches(train: DataSet, evaluation: DataSet, row: int, equal: NDArray[np.int64], listed: int) -> list[Match]:
    """The training images with the pixels of an evaluation image, those with its bytes first."""
    exact = (train.content[equal] == evaluation.content[row]).all(axis=1)
    ordered = np.concatenate([equal[exact], equal[~exact]])[:listed]
    first_others = int(exact.sum())
    return [
        Match(Kind.EXACT if place < first_others else Kind.PIXELS, row, train_row)
        for place, train_row in enumerate(ordered.tolist())
    ]


@dataclass(frozen=True, eq=False)
class _Pictures:
    """The different pictures among some rows.

    Attributes:
        rows: [rows] in the order of the pictures, and of the rows within a picture.
        starts: [pictures + 1] where a picture's rows start.
        first: [pictures] one row of each.
        pixels: [pictures, 2] hashes of the pixels, ascending.
        hashes: [pictures] difference hashes.
        searchable: [pictures] whether there is something to recognise them by.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    first: NDArray[np.int64]
    pixels: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    searchable: NDArray[np.bool_]

    @classmethod
    def of(cls, data: DataSet, rows: NDArray[np.int64]) -> _Pictures:
        pixels = data.looks.pixels[rows]
        order = np.lexsort((pixels[:, 1], pixels[:, 0]))
        rows, pixels = rows[order], pixels[order]
        begins = np.ones(len(rows), dtype=bool)
        begins[1:] = (pixels[1:] != pixels[:-1]).any(axis=1)
        starts = np.flatnonzero(begins)
        first = rows[starts]
        return cls(
            rows,
            np.append(starts, len(rows)),
            first,
            pixels[starts],
            data.looks.hashes[first],
            data.looks.states[first] == State.SEEN,
        )

    def __len__(self) -> int:
        return len(self.first)

    def rows_of(self, picture: int) -> NDArray[np.int64]:
        return self.rows[self.starts[picture] : self.starts[picture + 1]]


def _equal_pictures(seen: _Pictures, asked: _Pictures) -> NDArray[np.int64]:
    """[asked] the picture that was seen and has the same pixels; -1 if none has."""
    same = np.full(len(asked), -1, dtype=np.int64)
    for left, right, _ in pairs_between(seen.pixels[:, 0], asked.pixels[:, 0], 0):
        both = seen.pixels[left, 1] == asked.pixels[right, 1]
        same[right[both]] = left[both]
    return same


def _candidates(
    seen: _Pictures, asked: _Pictures, radius: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
    """Pictures seen and asked for, with near hashes."""
    left_of, right_of = np.flatnonzero(seen.searchable), np.flatnonzero(asked.searchable)
    for left, right, distance in pairs_between(seen.hashes[left_of], asked.hashes[right_of], radius):
        yield left_of[left], right_of[right], distance


class _Nearest:
    """The best few of the near pictures of each picture, and how many images there are of all."""

    def __init__(self, pictures: int, listed: int, sizes: NDArray[np.int64]) -> None:
        self.counts = np.zeros(pictures, dtype=np.int64)
        self._listed = listed
        self._sizes = sizes
        self._waiting: list[NDArray[np.void]] = []
        self._best = np.empty(0, dtype=[("picture", "i8"), ("other", "i8"), ("distance", "u1"), ("apart", "f4")])

    def add(
        self,
        pictures: NDArray[np.int64],
        others: NDArray[np.int64],
        distance: NDArray[np.uint8],
        apart: NDArray[np.float32],
    ) -> None:
        np.add.at(self.counts, pictures, self._sizes[others])
        more = np.empty(len(pictures), dtype=self._best.dtype)
        more["picture"], more["other"], more["distance"], more["apart"] = pictures, others, distance, apart
        self._waiting.append(more)
        if sum(map(len, self._waiting)) > _MOST_KEPT:
            self.prune()

    def prune(self) -> None:
        """Keeps the best of each picture."""
        best = np.concatenate([self._best, *self._waiting])
        self._waiting = []
        best = best[np.lexsort((best["other"], best["distance"], best["apart"], best["picture"]))]
        picture = best["picture"]
        first = np.searchsorted(picture, picture, "left")
        self._best = best[np.arange(len(best)) - first < self._listed]

    def pictures(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.unique(self._best["picture"])
        return found

    def by_picture(self) -> dict[int, list[tuple[int, int, float]]]:
        """picture -> (other, distance, apart), the nearest first."""
        found: dict[int, list[tuple[int, int, float]]] = {}
        for picture, other, distance, apart in self._best.tolist():
            found.setdefault(picture, []).append((other, distance, apart))
        return found
