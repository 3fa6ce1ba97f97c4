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
from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.duplicates import DROPPED, DuplicatesConfig, SplitAssignment
from pipeline.sharding.writing.split import InheritedSplits, assign_splits
from pipeline.sharding.writing.split_config import SplitConfig
from pipeline.sharding.writing.tar_writer import shard_name

_TRAIN = SPLITS.index("train")


class CapsConfig(Config):
    """Maximum number of training images per label and per concept; a hash of the keys selects them."""

    per_label: int | None = Field(
        None, ge=1, description="Maximum number of training images per label. null: no limit."
    )
    per_concept: int | None = Field(
        None, ge=1, description="Maximum number of training images per concept (node of the taxonomy). null: no limit."
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

    @classmethod
    def of_megabytes(cls, samples: int, megabytes: float | None) -> ShardSize:
        return cls(samples, None if megabytes is None else int(megabytes * 1e6))


@dataclass(frozen=True, eq=False)
class Plan:
    """Which images are stored, and in which shards.

    Attributes:
        rows: [samples] rows of the columns, in the order of the samples' ids.
        splits: [samples] index into `SPLITS`.
        edges: [shards + 1] the id of each shard's first sample, then the number of samples.
        shard_names: [shards].
        suffixes: row -> n for a sample that gets the key KEY-n, because an earlier sample has the same key.
        assignment: the splits and dropped duplicates.
        capped: name of the cap -> number of training images left out.
    """

    rows: NDArray[np.int64]
    splits: NDArray[np.int8]
    edges: NDArray[np.int64]
    shard_names: tuple[str, ...]
    suffixes: dict[int, int]
    assignment: SplitAssignment
    capped: dict[str, int]

    def suffixes_of(self, rows: NDArray[np.int64]) -> dict[int, int]:
        """`suffixes` of these rows of the columns, by position in `rows`."""
        if not self.suffixes:
            return {}
        return {position: self.suffixes[row] for position, row in enumerate(rows.tolist()) if row in self.suffixes}


def build_plan(
    columns: PlanColumns,
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
    selection = select_samples(columns, split=split, duplicates=duplicates, caps=caps, label_names=label_names)
    return arrange(columns, key_of, np.flatnonzero(selection.splits != DROPPED), selection, size)


@dataclass(frozen=True, eq=False)
class Selection:
    """Which images are stored.

    Attributes:
        splits: [samples] index into `SPLITS`, or DROPPED.
        assignment, capped: see `Plan`.
    """

    splits: NDArray[np.int8]
    assignment: SplitAssignment
    capped: dict[str, int]


def select_samples(
    columns: PlanColumns,
    *,
    split: SplitConfig,
    duplicates: DuplicatesConfig,
    caps: CapsConfig,
    label_names: Sequence[str],
    inherited: InheritedSplits | None = None,
) -> Selection:
    """Assigns splits, then drops duplicates and the images beyond the caps.

    Raises:
        InputError: a class is too small to be in every split.
    """
    assignment = assign_splits(columns, split, duplicates, label_names, inherited)
    splits = assignment.splits.copy()
    capped = {
        "per_label": _cap(splits, columns.label, columns.key_hash, caps.per_label),
        "per_concept": _cap(splits, columns.node, columns.key_hash, caps.per_concept),
    }
    return Selection(splits, assignment, capped)


def arrange(
    columns: PlanColumns,
    key_of: Callable[[int], str],
    rows: NDArray[np.int64],
    selection: Selection,
    size: ShardSize,
    used: NDArray[np.uint64] | None = None,
) -> Plan:
    """Determines keys, order and shards of images.

    Args:
        rows: rows of the columns, ascending.
        selection: the split of every row of the columns.
        used: hashes of keys that are already in use, e.g. in the base.
    """
    splits = selection.splits[rows]
    suffixes, key_hashes = _distinct_keys(columns.key_hash[rows], rows, key_of, used)
    order = order_in_splits(splits, key_hashes)
    rows, splits = rows[order], splits[order]
    edges = shard_edges(splits, columns.sample_bytes[rows], size)
    return Plan(
        rows, splits, edges, shard_names_of(splits[edges[:-1]]), suffixes, selection.assignment, selection.capped
    )


def _cap(splits: NDArray[np.int8], values: NDArray[np.int32], key_hashes: NDArray[np.uint64], limit: int | None) -> int:
    """Drops training samples beyond `limit` per value; returns the number dropped."""
    if limit is None:
        return 0
    rows = np.flatnonzero((splits == _TRAIN) & (values >= 0))
    rows = rows[np.lexsort((rows, key_hashes[rows], values[rows]))]
    starts = np.flatnonzero(np.append(True, values[rows][1:] != values[rows][:-1]))
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows)))) if len(rows) else rows
    splits[rows[rank >= limit]] = DROPPED
    return int((rank >= limit).sum())


def _distinct_keys(
    hashes: NDArray[np.uint64],
    rows: NDArray[np.int64],
    key_of: Callable[[int], str],
    used: NDArray[np.uint64] | None,
) -> tuple[dict[int, int], NDArray[np.uint64]]:
    """(row -> n for each sample that gets the key KEY-n since an earlier one has its key; hashes of the final keys).

    Args:
        hashes: [rows] hashes of the keys.
        used: hashes of keys that the samples must not have.
    """
    used = np.empty(0, dtype=np.uint64) if used is None else used
    all_hashes = np.sort(np.concatenate([hashes, used]))
    repeated = np.unique(all_hashes[1:][all_hashes[1:] == all_hashes[:-1]])
    if not repeated.size:
        return {}, hashes
    users = np.flatnonzero(np.isin(hashes, repeated))
    firsts = users[np.unique(hashes[users], return_index=True)[1]]
    renamed = np.setdiff1d(users, firsts[~np.isin(hashes[firsts], used)])
    hashes = hashes.copy()
    added: set[int] = set()
    suffixes: dict[int, int] = {}
    next_number: dict[int, int] = {}
    for position in renamed.tolist():
        original = int(hashes[position])
        key, number = key_of(int(rows[position])), next_number.get(original, 2)
        while (hashed := text_hash(f"{key}-{number}")) in added or _contains(all_hashes, hashed):
            number += 1
        next_number[original] = number + 1
        added.add(hashed)
        suffixes[int(rows[position])] = number
        hashes[position] = hashed
    return suffixes, hashes


def order_in_splits(splits: NDArray[np.int8], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The positions of the samples, sorted by split, then by hash; the hashes are distinct, so the order is unique."""
    members = [np.flatnonzero(splits == split) for split in range(len(SPLITS))]
    return np.concatenate([positions[np.argsort(hashes[positions])] for positions in members])


def _contains(ascending: NDArray[np.uint64], value: int) -> bool:
    position = int(np.searchsorted(ascending, np.uint64(value)))
    return position < len(ascending) and int(ascending[position]) == value


def shard_edges(splits: NDArray[np.int8], sample_bytes: NDArray[np.int64], size: ShardSize) -> NDArray[np.int64]:
    """[shards + 1] the first sample of each shard, then the number of samples; a shard has samples of one split.

    Args:
        splits: [samples] ascending.
        sample_bytes: [samples] bytes of each sample in a tar.
    """
    edges = [0]
    ends = np.cumsum(sample_bytes)
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


def shard_names_of(splits: NDArray[np.int8]) -> tuple[str, ...]:
    """The names of shards, numbered within their splits; `splits` is [shards]."""
    numbers = [0] * len(SPLITS)
    names = []
    for split in splits.tolist():
        names.append(shard_name(SPLITS[split], numbers[split]))
        numbers[split] += 1
    return tuple(names)
