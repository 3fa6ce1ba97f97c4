"""The search: for each evaluation image the training images that are the same, or nearly the same.

Images with equal pixels are one picture, and the search is over pictures: a placeholder that occurs ten thousand times
costs no more than one that occurs once. Near hashes give candidates, the detailed comparison decides. Only the best few
matches of each evaluation picture are stored, so the number of evaluation pictures bounds the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.leaks.kinds import Kind
from pipeline.leaks.signature import State, difference
from pipeline.leaks.signature_cache import Signatures
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.perceptual import pairs_between

# Number of new pairs of pictures after which all but the best of each evaluation picture are dropped.
_PRUNE_AT = 1 << 21


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set with the signatures of its images.

    Attributes:
        content: [rows, 2] content hashes.
    """

    index: SampleIndex
    signatures: Signatures
    content: NDArray[np.uint64]


@dataclass(frozen=True)
class Match:
    """An evaluation image and a matching training image, by row.

    Attributes:
        distance: number of the 64 bits in which their difference hashes differ.
        difference: from the detailed comparison (`signature.difference`); 0 for equal pixels, at most 1 for a match.
    """

    kind: Kind
    evaluation: int
    train: int
    distance: int = 0
    difference: float = 0.0

    @property
    def rank(self) -> tuple[int, float, int]:
        """Sort key, the worst first; the detailed comparison counts before the hash, since it is more exact."""
        return self.kind, self.difference, self.distance


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search.

    Attributes:
        matches: evaluation row -> its matches, the worst first, at most `listed`.
        counts: evaluation row -> how many training images match, listed or not.
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
    tolerance: float,
    listed: int,
    on_compared: Callable[[int], None] = lambda count: None,
) -> SearchResult:
    """Searches for evaluation images among training images.

    Args:
        train_rows, evaluation_rows: [n] rows of the two data sets, which may be the same data set.
        radius: maximum number of bits in which the hashes of a candidate pair differ.
        tolerance: of the detailed comparison, see `signature.difference`.
        listed: maximum number of matches per evaluation image.
        on_compared: called from time to time with the number of compared pairs.
    """
    train_pictures, evaluation_pictures = _Pictures.of(train, train_rows), _Pictures.of(evaluation, evaluation_rows)
    twin_of = _equal_pictures(train_pictures, evaluation_pictures)
    near_matches = _Nearest(len(evaluation_pictures), listed, np.diff(train_pictures.starts))
    count = 0
    for left, right, distance in _candidates(train_pictures, evaluation_pictures, radius):
        distinct = twin_of[right] != left
        left, right, distance = left[distinct], right[distinct], distance[distinct]
        differences = difference(
            train.signatures.at(train_pictures.first[left]),
            evaluation.signatures.at(evaluation_pictures.first[right]),
            tolerance,
        )
        same_image = differences <= 1  # `difference` has divided by `tolerance`
        near_matches.add(right[same_image], left[same_image], distance[same_image], differences[same_image])
        count += len(left)
        on_compared(count)
    near_matches.prune()
    matches: dict[int, list[Match]] = {}
    counts: dict[int, int] = {}
    matches_of_picture = near_matches.by_picture()
    for picture in np.union1d(np.flatnonzero(twin_of >= 0), near_matches.pictures()).tolist():
        twin = int(twin_of[picture])
        equal = train_pictures.rows_of(twin) if twin >= 0 else np.empty(0, dtype=np.int64)
        for row in evaluation_pictures.rows_of(picture).tolist():
            counts[row] = len(equal) + int(near_matches.counts[picture])
            row_matches = _equal_matches(train, evaluation, row, equal, listed)
            for other, bits, near_difference in matches_of_picture.get(picture, ()):
                more = train_pictures.rows_of(other)[: max(listed - len(row_matches), 0)].tolist()
                row_matches += [Match(Kind.NEAR, row, train_row, bits, near_difference) for train_row in more]
            matches[row] = row_matches
    return SearchResult(matches, counts)


def _equal_matches(train: DataSet, evaluation: DataSet, row: int, equal: NDArray[np.int64], listed: int) -> list[Match]:
    """Matches with the training images of equal pixels, those of equal bytes first."""
    exact = (train.content[equal] == evaluation.content[row]).all(axis=1)
    ordered = np.concatenate([equal[exact], equal[~exact]])[:listed]
    exact_count = int(exact.sum())
    return [
        Match(Kind.EXACT if number < exact_count else Kind.PIXELS, row, train_row)
        for number, train_row in enumerate(ordered.tolist())
    ]


@dataclass(frozen=True, eq=False)
class _Pictures:
    """The distinct pictures among some rows.

    Attributes:
        rows: [rows] sorted by picture, then by row.
        starts: [pictures + 1] offset of each picture's rows.
        first: [pictures] the first row of each picture.
        pixels: [pictures, 2] hashes of the pixels, ascending.
        hashes: [pictures] difference hashes.
        searchable: [pictures] whether near copies can be recognised: neither flat nor damaged.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    first: NDArray[np.int64]
    pixels: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    searchable: NDArray[np.bool_]

    @classmethod
    def of(cls, data: DataSet, rows: NDArray[np.int64]) -> _Pictures:
        pixels = data.signatures.pixels[rows]
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
            data.signatures.hashes[first],
            data.signatures.states[first] == State.COMPARABLE,
        )

    def __len__(self) -> int:
        return len(self.first)

    def rows_of(self, picture: int) -> NDArray[np.int64]:
        return self.rows[self.starts[picture] : self.starts[picture + 1]]


def _equal_pictures(train_pictures: _Pictures, evaluation_pictures: _Pictures) -> NDArray[np.int64]:
    """[evaluation pictures] the training picture with the same pixels; -1 if there is none."""
    same = np.full(len(evaluation_pictures), -1, dtype=np.int64)
    for left, right, _ in pairs_between(train_pictures.pixels[:, 0], evaluation_pictures.pixels[:, 0], 0):
        both = train_pictures.pixels[left, 1] == evaluation_pictures.pixels[right, 1]
        same[right[both]] = left[both]
    return same


def _candidates(
    train_pictures: _Pictures, evaluation_pictures: _Pictures, radius: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
    """Pairs of a training picture and an evaluation picture with near hashes, and their distances."""
    left_of, right_of = np.flatnonzero(train_pictures.searchable), np.flatnonzero(evaluation_pictures.searchable)
    for left, right, distance in pairs_between(
        train_pictures.hashes[left_of], evaluation_pictures.hashes[right_of], radius
    ):
        yield left_of[left], right_of[right], distance


class _Nearest:
    """For each evaluation picture the best near training pictures, and the number of images of all near ones.

    Args:
        pictures: number of evaluation pictures.
        listed: maximum number of training pictures stored for each.
        sizes: [training pictures] number of images of each.
    Attributes:
        counts: [evaluation pictures] number of training images of all near pictures, stored or not.
    """

    def __init__(self, pictures: int, listed: int, sizes: NDArray[np.int64]) -> None:
        self.counts = np.zeros(pictures, dtype=np.int64)
        self._listed = listed
        self._sizes = sizes
        self._pending: list[NDArray[np.void]] = []
        self._best = np.empty(0, dtype=[("picture", "i8"), ("other", "i8"), ("distance", "u1"), ("difference", "f4")])

    def add(
        self,
        pictures: NDArray[np.int64],
        others: NDArray[np.int64],
        distance: NDArray[np.uint8],
        differences: NDArray[np.float32],
    ) -> None:
        np.add.at(self.counts, pictures, self._sizes[others])
        more = np.empty(len(pictures), dtype=self._best.dtype)
        more["picture"], more["other"], more["distance"], more["difference"] = pictures, others, distance, differences
        self._pending.append(more)
        if sum(map(len, self._pending)) > _PRUNE_AT:
            self.prune()

    def prune(self) -> None:
        """Drops all but the best `listed` training pictures of each evaluation picture."""
        best = np.concatenate([self._best, *self._pending])
        self._pending = []
        best = best[np.lexsort((best["other"], best["distance"], best["difference"], best["picture"]))]
        picture = best["picture"]
        first = np.searchsorted(picture, picture, "left")
        self._best = best[np.arange(len(best)) - first < self._listed]

    def pictures(self) -> NDArray[np.int64]:
        pictures: NDArray[np.int64] = np.unique(self._best["picture"])
        return pictures

    def by_picture(self) -> dict[int, list[tuple[int, int, float]]]:
        """Evaluation picture -> (training picture, distance, difference), the nearest first."""
        pairs: dict[int, list[tuple[int, int, float]]] = {}
        for picture, other, distance, pair_difference in self._best.tolist():
            pairs.setdefault(picture, []).append((other, distance, pair_difference))
        return pairs
