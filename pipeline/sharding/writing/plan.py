"""The plan: which images go into which shard, in which order. A pure function of the columns and the config.

Within a split the samples are sorted by a hash of their keys: every shard is a random sample of its split, so a
sequential reader of a tar sees mixed classes. All operations are on columns: no Python object is created per image,
except for the few images with a repeated key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import Config
from pipeline.counter_rng import text_hash
from pipeline.sharding.format.index import SPLITS
from pipeline.sharding.format.tar_layout import END_BYTES
from pipeline.sharding.writing.chunks import Columns
from pipeline.sharding.writing.duplicates import DROPPED, DuplicatesConfig, Kept
from pipeline.sharding.writing.split import Settled, assign_splits
from pipeline.sharding.writing.split_config import SplitConfig
from pipeline.sharding.writing.tar_writer import shard_name

_TRAIN = SPLITS.index("train")


class CapsConfig(Config):
    """Maximum numbers of training images of a label or a node; a hash of the keys decides which stay."""

    per_label: int | None = Field(None, ge=1, description="Training images of one label, at most; null: all.")
    per_concept: int | None = Field(
        None, ge=1, description="Training images of one node of the taxonomy, at most; null: all."
    )


@dataclass(frozen=True)
class ShardSize:
    """Maximum size of a shard.

    Attributes:
        samples: maximum number of samples.
        bytes: maximum size of the tar, which only a single larger sample exceeds; None: no limit.
    """

    samples: int
    bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Which images are stored, and in which shards.

    Attributes:
        rows: [samples] rows of the columns, in the order of the samples' ids.
        splits: [samples] index into `SPLITS`.
        edges: [shards + 1] the id of each shard's first sample.
        shard_names: [shards].
        suffixes: row -> n for a sample that gets the key KEY-n, because an earlier sample has the same key.
        kept: the result of duplicate removal.
        capped: name of the cap -> number of training images left out.
    """

    rows: NDArray[np.int64]
    splits: NDArray[np.int8]
    edges: NDArray[np.int64]
    shard_names: tuple[str, ...]
    suffixes: dict[int, int]
    kept: Kept
    capped: dict[str, int]

    def suffixes_of(self, rows: NDArray[np.int64]) -> dict[int, int]:
        """`suffixes` of these rows of the columns, by position in `rows`."""
        if not self.suffixes:
            return {}
        return {place: self.suffixes[row] for place, row in enumerate(rows.tolist()) if row in self.suffixes}


def make_plan(
    columns: Columns,
    key_of: Callable[[int], str],
    *,
    split: SplitConfig,
    duplicates: DuplicatesConfig,
    caps: CapsConfig,
    size: ShardSize,
    label_names: Sequence[str],
) -> Plan:
    """The plan for these images.

    Args:
        key_of: the key of a row; called for repeated keys only.

    Raises:
        InputError: a class is too small to be in every split.
    """
    chosen = choose(columns, split=split, duplicates=duplicates, caps=caps, label_names=label_names)
    return arrange(columns, key_of, np.flatnonzero(chosen.splits != DROPPED), chosen, size)


@dataclass(frozen=True, eq=False)
class Chosen:
    """Which images are stored.

    Attributes:
        splits: [samples] index into `SPLITS`, or DROPPED.
        kept, capped: see `Plan`.
    """

    splits: NDArray[np.int8]
    kept: Kept
    capped: dict[str, int]


def choose(
    columns: Columns,
    *,
    split: SplitConfig,
    duplicates: DuplicatesConfig,
    caps: CapsConfig,
    label_names: Sequence[str],
    settled: Settled | None = None,
) -> Chosen:
    """Assigns splits, then drops duplicates and the images beyond the caps.

    Raises:
        InputError: a class is too small to be in every split.
    """
    kept = assign_splits(columns, split, duplicates, label_names, settled)
    splits = kept.splits.copy()
    capped = {
        "per_label": _cap(splits, columns.label, columns.order, caps.per_label),
        "per_concept": _cap(splits, columns.node, columns.order, caps.per_concept),
    }
    return Chosen(splits, kept, capped)


def arrange(
    columns: Columns,
    key_of: Callable[[int], str],
    rows: NDArray[np.int64],
    chosen: Chosen,
    size: ShardSize,
    taken: NDArray[np.uint64] | None = None,
) -> Plan:
    """Determines keys, order and shards of images.

    Args:
        rows: rows of the columns, ascending.
        chosen: has a split for every row of the columns.
        taken: hashes of keys that are already in use, e.g. in the base.
    """
    splits = chosen.splits[rows]
    suffixes, order = _distinct_keys(columns.order[rows], rows, key_of, taken)
    places = sorted_in_splits(splits, order)
    rows, splits = rows[places], splits[places]
    edges = cut(splits, columns.stored[rows], size)
    return Plan(rows, splits, edges, names_of_shards(splits[edges[:-1]]), suffixes, chosen.kept, chosen.capped)


def _cap(splits: NDArray[np.int8], values: NDArray[np.int32], order: NDArray[np.uint64], most: int | None) -> int:
    """Drops training samples beyond `most` per value; returns the number dropped."""
    if most is None:
        return 0
    rows = np.flatnonzero((splits == _TRAIN) & (values >= 0))
    rows = rows[np.lexsort((rows, order[rows], values[rows]))]
    starts = np.flatnonzero(np.append(True, values[rows][1:] != values[rows][:-1]))
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows)))) if len(rows) else rows
    splits[rows[rank >= most]] = DROPPED
    return int((rank >= most).sum())


def _distinct_keys(
    order: NDArray[np.uint64],
    rows: NDArray[np.int64],
    key_of: Callable[[int], str],
    elsewhere: NDArray[np.uint64] | None,
) -> tuple[dict[int, int], NDArray[np.uint64]]:
    """(row -> n for the second, third, ... sample with a key, which gets "-2", "-3", ...; hashes of the final keys)."""
    before = np.empty(0, dtype=np.uint64) if elsewhere is None else elsewhere
    taken = np.sort(np.concatenate([order, before]))
    repeated = np.unique(taken[1:][taken[1:] == taken[:-1]])
    if not repeated.size:
        return {}, order
    users = np.flatnonzero(np.isin(order, repeated))
    firsts = users[np.unique(order[users], return_index=True)[1]]
    again = np.setdiff1d(users, firsts[~np.isin(order[firsts], before)])
    order = order.copy()
    added: set[int] = set()
    suffixes: dict[int, int] = {}
    next_of: dict[int, int] = {}
    for place in again.tolist():
        key, number = key_of(int(rows[place])), next_of.get(int(order[place]), 2)
        base = int(order[place])
        while (hashed := text_hash(f"{key}-{number}")) in added or _holds(taken, hashed):
            number += 1
        next_of[base] = number + 1
        added.add(hashed)
        suffixes[int(rows[place])] = number
        order[place] = hashed
    return suffixes, order


def sorted_in_splits(splits: NDArray[np.int8], order: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions sorted by split, then by hash; the hashes are distinct, so the order is unique."""
    members = [np.flatnonzero(splits == split) for split in range(len(SPLITS))]
    return np.concatenate([places[np.argsort(order[places])] for places in members])


def _holds(ascending: NDArray[np.uint64], value: int) -> bool:
    place = int(np.searchsorted(ascending, np.uint64(value)))
    return place < len(ascending) and int(ascending[place]) == value


def cut(splits: NDArray[np.int8], stored: NDArray[np.int64], size: ShardSize) -> NDArray[np.int64]:
    """The first sample of each shard, then the number of samples; a shard contains samples of one split."""
    edges = [0]
    ends = np.cumsum(stored)
    for split in np.unique(splits).tolist():
        end = int(np.searchsorted(splits, split, side="right"))
        while (start := edges[-1]) < end:
            stop = min(start + size.samples, end)
            if size.bytes is not None:
                before = int(ends[start - 1]) if start else 0
                fits = int(np.searchsorted(ends, before + size.bytes - END_BYTES, side="right"))
                stop = max(start + 1, min(stop, fits))
            edges.append(stop)
    return np.array(edges, dtype=np.int64)


def names_of_shards(splits: NDArray[np.int8]) -> tuple[str, ...]:
    numbers = [0] * len(SPLITS)
    names = []
    for split in splits.tolist():
        names.append(shard_name(SPLITS[split], numbers[split]))
        numbers[split] += 1
    return tuple(names)
