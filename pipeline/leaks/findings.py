"""The results of a leak check: pairs of images, and the number of leaked images of each evaluation split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipeline.artifacts import Artifact
from pipeline.leaks.kinds import KINDS, Kind
from pipeline.leaks.search import DataSet, Match, SearchResult
from pipeline.leaks.signature import State
from pipeline.sharding.format.index import SPLITS
from pipeline.sharding.format.item_names import item_names


@dataclass(frozen=True)
class ImageRef:
    """An image of a pair, with the names by which a person finds it.

    Attributes:
        data_set: the name of its data set in the check: "shards" or "other".
        label: None for an image without a label.
        name: its name in the source, e.g. the path of its file; the key if it has none.
    """

    data_set: str
    row: int
    key: str
    split: str
    label: str | None
    name: str


@dataclass(frozen=True)
class Pair:
    """An evaluation image and a matching training image.

    Attributes:
        matches: how many training images match the evaluation image, listed or not.
    """

    match: Match
    evaluation: ImageRef
    train: ImageRef
    matches: int

    @property
    def kind(self) -> str:
        return KINDS[self.match.kind]

    @property
    def same_label(self) -> bool | None:
        """None if one of them has no label."""
        if self.evaluation.label is None or self.train.label is None:
            return None
        return self.evaluation.label == self.train.label


@dataclass(frozen=True)
class SplitFinding:
    """An evaluation split: each of its images counts once, under the worst kind of its matches.

    Attributes:
        images: number of images of the split.
        found: kind -> number of images.
        flat: number of images of (nearly) one colour, for which only equal pixels count as a match.
        unreadable: number of damaged images, for which only equal bytes count as a match.
    """

    data_set: str
    split: str
    images: int
    found: Mapping[str, int]
    flat: int
    unreadable: int

    def share(self, kind: str) -> float:
        """The fraction of the split's images that were found with this kind."""
        return self.found[kind] / self.images


def split_findings(name: str, data: DataSet, results: Iterable[SearchResult]) -> list[SplitFinding]:
    """The findings of each non-empty evaluation split of a data set, over all searches for its images."""
    worst_kind = np.full(len(data.index), len(KINDS), dtype=np.int8)
    for result in results:
        for row, matches in result.matches.items():
            worst_kind[row] = min(int(worst_kind[row]), *(match.kind for match in matches))
    findings = []
    for split in SPLITS[1:]:
        rows = data.index.rows(split)
        if rows.size:
            counts = np.bincount(worst_kind[rows], minlength=len(KINDS) + 1).tolist()
            states = np.bincount(data.signatures.states[rows], minlength=len(State)).tolist()
            findings.append(
                SplitFinding(
                    name,
                    split,
                    len(rows),
                    {kind: counts[Kind[kind.upper()]] for kind in KINDS},
                    flat=states[State.FLAT],
                    unreadable=states[State.UNREADABLE],
                )
            )
    return findings


def ranked_pairs(
    name: str, data: DataSet, searches: Sequence[tuple[str, DataSet, SearchResult]], listed: int
) -> list[Pair]:
    """The pairs of a data set's evaluation images, the worst first.

    Args:
        searches: (name of the training data, training data, search result) of each search.
        listed: maximum number of pairs per evaluation image.
    """
    rows = sorted({row for _, _, search in searches for row in search.matches})
    pairs = []
    for row in rows:
        matches = sum(search.counts.get(row, 0) for _, _, search in searches)
        ranked = sorted(
            (
                (match, train_name, train)
                for train_name, train, search in searches
                for match in search.matches.get(row, ())
            ),
            key=lambda candidate: (candidate[0].rank, candidate[1], candidate[0].train),
        )
        evaluation_image = _image(name, data, row)
        pairs += [
            Pair(match, evaluation_image, _image(train_name, train, match.train), matches)
            for match, train_name, train in ranked[:listed]
        ]
    return sorted(pairs, key=lambda pair: pair.match.rank)


def _image(name: str, data: DataSet, row: int) -> ImageRef:
    index = data.index
    label, key = int(index.labels[row]), index.key(row)
    label_name = index.label_names[label] if label >= 0 else None
    return ImageRef(name, row, key, SPLITS[index.splits[row]], label_name, key)


def with_names(pairs: Sequence[Pair], data: Mapping[str, Artifact]) -> list[Pair]:
    """The pairs with the names that the images have in their sources.

    Args:
        data: the shards of each data set.
    """
    names = {
        name: item_names(
            shards,
            {image.row for pair in pairs for image in (pair.evaluation, pair.train) if image.data_set == name},
        )
        for name, shards in data.items()
    }

    def with_name(image: ImageRef) -> ImageRef:
        return replace(image, name=names[image.data_set].get(image.row, image.key))

    return [replace(pair, evaluation=with_name(pair.evaluation), train=with_name(pair.train)) for pair in pairs]


def pair_table(pairs: Sequence[Pair]) -> pa.Table:
    """The content of leaks.parquet: one row per pair."""
    columns: dict[str, tuple[pa.DataType, list[object]]] = {
        "kind": (pa.string(), [pair.kind for pair in pairs]),
        "distance": (pa.int8(), [pair.match.distance for pair in pairs]),
        "difference": (pa.float32(), [pair.match.difference for pair in pairs]),
        "same_label": (pa.bool_(), [pair.same_label for pair in pairs]),
        "matches": (pa.int64(), [pair.matches for pair in pairs]),
    }
    for side in ("evaluation", "train"):
        images = [getattr(pair, side) for pair in pairs]
        columns[f"{side}_data"] = (pa.string(), [image.data_set for image in images])
        columns[f"{side}_split"] = (pa.string(), [image.split for image in images])
        columns[f"{side}_name"] = (pa.string(), [image.name for image in images])
        columns[f"{side}_key"] = (pa.string(), [image.key for image in images])
        columns[f"{side}_label"] = (pa.string(), [image.label for image in images])
        columns[f"{side}_id"] = (pa.int64(), [image.row for image in images])
    return pa.table({name: pa.array(values, type=kind) for name, (kind, values) in columns.items()})
