"""A delta: items of a source that its base lacks, and samples of the base that are gone; only changes are read.

    list the source -> compare with the base's listing -> read items that are new, changed or without a stamp
        -> select among all items (splits, duplicates, caps) -> read what is selected and was left out of the base
        -> select again

Duplicates and caps are decided over all items in source order, as in a full run, from the hashes in the listing. So an
image that the base dropped as a copy is stored when the image that it copies is removed from the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.progress import Progress
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.deltas.delta_base import Base
from pipeline.sharding.deltas.diff_with_base import ItemHashes, find_unchanged, match_by_name
from pipeline.sharding.deltas.inherited_splits import inherit_splits
from pipeline.sharding.deltas.items_table import Listing
from pipeline.sharding.format.mapped_columns import mapped_numbers
from pipeline.sharding.format.taxonomy import NodePaths
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.writing.chunks import ChunkResult, PlanColumns, read_table
from pipeline.sharding.writing.duplicates import DROPPED
from pipeline.sharding.writing.intake import Intake, nothing_usable_error, run_intake
from pipeline.sharding.writing.item_columns import PLAN_COLUMNS
from pipeline.sharding.writing.plan import Selection, select_samples
from pipeline.sharding.writing.rare_classes import DROPPED_CLASS, LabelSizes, label_numbers

# The states of an item of the source: stored by the base, read now, left out by the base, unreadable. The values are
# ranks: of repeats, the one with the lowest rank stays.
_STORED, _READ, _LEFT_OUT, _UNREADABLE = range(4)


@dataclass(frozen=True, eq=False)
class Delta:
    """The samples that a delta stores, and those that it takes over from its base.

    Attributes:
        base: the base of the delta.
        listing: the base's listing.
        all_label_names: names of the base's labels, then of the new ones.
        labels: their numbers, see `label_numbers`: rare new classes may be dropped.
        chunks, columns: the items that were read.
        hashes: the source's items.
        readable: indices of the readable items in source order, ascending.
        state: [readable] _STORED or _LEFT_OUT by the base, or _READ.
        rows: [readable] rows of the base's listing, or rows of `columns` for items that were read.
        selection: [readable] which items are stored.
        base_rows: [items] row of the base's listing with the same name, -1 for none.
    """

    base: Base
    listing: Listing
    all_label_names: tuple[str, ...]
    labels: NDArray[np.int32]
    chunks: list[ChunkResult]
    columns: PlanColumns
    hashes: ItemHashes
    readable: NDArray[np.int64]
    state: NDArray[np.int8]
    rows: NDArray[np.int64]
    selection: Selection
    base_rows: NDArray[np.int64]

    @property
    def label_names(self) -> list[str]:
        """The label names without dropped classes."""
        return [
            name for name, number in zip(self.all_label_names, self.labels, strict=False) if number != DROPPED_CLASS
        ]

    @property
    def new_rows(self) -> NDArray[np.int64]:
        """Rows of `columns` that are stored, ascending."""
        return np.sort(self.rows[(self.state == _READ) & (self.selection.splits != DROPPED)])

    @property
    def reused_rows(self) -> NDArray[np.int64]:
        """Rows of the base's listing that the delta takes over, ascending."""
        return np.sort(self.rows[(self.state == _STORED) & (self.selection.splits != DROPPED)])

    @property
    def was_read(self) -> NDArray[np.bool_]:
        """[readable] whether `rows` has a row of `columns`."""
        return self.state == _READ

    def selection_of_columns(self) -> Selection:
        """`selection` for the rows of `columns`."""
        splits = np.full(len(self.columns), DROPPED, dtype=np.int8)
        read = self.was_read
        splits[self.rows[read]] = self.selection.splits[read]
        return replace(self.selection, splits=splits)

    def tombstones(self) -> tuple[NDArray[np.int64], list[str]]:
        """(rows of the base's listing that the base stores and the delta does not, ascending; the reason of each)."""
        listing = self.listing
        stored = np.flatnonzero(listing.numbers["row"] >= 0)
        rows = np.setdiff1d(stored, self.reused_rows, assume_unique=True)
        item_of = np.full(len(listing), -1, dtype=np.int64)
        matched = self.base_rows >= 0
        item_of[self.base_rows[matched]] = np.flatnonzero(matched)
        readable_of = np.full(len(self.hashes), -1, dtype=np.int64)
        readable_of[self.readable] = np.arange(len(self.readable))
        reasons = []
        for item in item_of[rows].tolist():
            index = int(readable_of[item]) if item >= 0 else -1
            if item < 0:
                reasons.append("removed")
            elif index < 0:
                reasons.append("unreadable")
            elif self.state[index] == _READ:
                reasons.append("changed")
            else:
                reasons.append("duplicate" if self.selection.assignment.splits[index] == DROPPED else "capped")
        return rows, reasons

    def counts(self, reasons: list[str]) -> dict[str, Any]:
        """The numbers of new, changed, removed and live samples, for the data card.

        Args:
            reasons: see `tombstones`.
        """
        read = self.was_read & (self.selection.splits != DROPPED)
        base_rows = self.base_rows[self.readable[read]]
        changed = int((self.listing.numbers["row"][base_rows[base_rows >= 0]] >= 0).sum())
        return {
            "base": self.base.artifact.name,
            "base_samples": len(self.base.index),
            "new": int(read.sum()) - changed,
            "changed": changed,
            "removed": len(reasons) - changed,
            "live": int((self.selection.splits != DROPPED).sum()),
            "why": dict(sorted(Counter(reasons).items())),
        }


def read_delta(config: ShardingConfig, base: Base, collection: Collection, intake: Intake, progress: Progress) -> Delta:
    """Compares a source with its base, reads the items it needs, and chooses the samples.

    Args:
        intake: its `labels` are those of the base, then the new ones.
    Raises:
        InputError: a new class is too small to be in every split; if possible before any image is read.
        WorkError: more items are unreadable than allowed.
    """
    listing = Listing.open(base.artifact, intake.scratch.columns("listing"))
    sizes = LabelSizes(config.split, base.index.label_names)
    items = sizes.count(collection.items())
    hashes = ItemHashes.of(items, collection.total, progress, intake.scratch.columns("source"))
    base_rows = match_by_name(hashes, listing)
    # An item with another label than in the base keeps its split, so its new class is exempt from the check.
    sizes.check(
        collection.label_names, [name for name, items in sizes.first_items.items() if (base_rows[items] >= 0).any()]
    )
    same = find_unchanged(hashes, listing, base_rows, trust_names=config.trust_names)
    state = np.full(len(hashes), _UNREADABLE, dtype=np.int8)
    rows = np.where(same, base_rows, -1)
    state[same] = np.where(listing.numbers["row"][base_rows[same]] >= 0, _STORED, _LEFT_OUT)
    wanted = np.flatnonzero(~same)
    chunks: list[ChunkResult] = []
    first = True
    while True:
        first_row = sum(result.row_count for result in chunks)
        new_chunks = run_intake(
            _subset(collection, wanted, len(hashes)),
            intake,
            runner=config.runner,
            writers=config.writers,
            progress=progress,
            first_chunk=len(chunks),
        )
        new_items = wanted[_numbers_in_intake(intake, new_chunks, len(chunks))]
        chunks += new_chunks
        columns = PlanColumns.load(intake.scratch, chunks)
        state[wanted] = _UNREADABLE
        state[new_items] = _READ
        rows[new_items] = np.arange(first_row, len(columns))
        if first:
            _reuse_unchanged(listing, columns, hashes, base_rows, new_items, state, rows)
            first = False
        readable = np.flatnonzero(state != _UNREADABLE)
        if not readable.size:
            raise nothing_usable_error(len(hashes), chunks)
        selection = _select(
            config, base, listing, columns, intake, state[readable], rows[readable], base_rows[readable]
        )
        wanted = readable[(state[readable] == _LEFT_OUT) & (selection.splits != DROPPED)]
        if not wanted.size:
            return Delta(
                base=base,
                listing=listing,
                all_label_names=tuple(intake.labels),
                labels=label_numbers(len(intake.labels), selection.assignment.dropped_labels),
                chunks=chunks,
                columns=columns,
                hashes=hashes,
                readable=readable,
                state=state[readable],
                rows=rows[readable],
                selection=selection,
                base_rows=base_rows,
            )


def _subset(collection: Collection, wanted: NDArray[np.int64], count: int) -> Collection:
    """The collection with only the items at the indices `wanted`."""
    mask = np.zeros(count, dtype=bool)
    mask[wanted] = True

    def items() -> Iterator[Item]:
        return compress(collection.items(), mask)

    return replace(collection, items=items, total=len(wanted))


def _numbers_in_intake(intake: Intake, chunks: list[ChunkResult], first: int) -> NDArray[np.int64]:
    """[rows] index of each row's item among the items of one intake."""
    numbers = [np.empty(0, dtype=np.int64)]
    start = 0
    for chunk, result in enumerate(chunks, first):
        numbers.append(read_table(intake.scratch, chunk).column("number").to_numpy() + start)
        start += result.items
    return np.concatenate(numbers)


def _reuse_unchanged(
    listing: Listing,
    columns: PlanColumns,
    hashes: ItemHashes,
    base_rows: NDArray[np.int64],
    items: NDArray[np.int64],
    state: NDArray[np.int8],
    rows: NDArray[np.int64],
) -> None:
    """Marks items that were read and found unchanged, such as touched files, as items of the base."""
    old, new = base_rows[items], rows[items]
    listed = listing.numbers
    same = (
        (old >= 0)
        & (listed["metadata_hash"][old] == hashes.metadata_hash[items])
        & (listed["hash_high"][old] == columns.hash_high[new])
        & (listed["hash_low"][old] == columns.hash_low[new])
    )
    items, old = items[same], old[same]
    rows[items] = old
    state[items] = np.where(listed["row"][old] >= 0, _STORED, _LEFT_OUT)


def _select(
    config: ShardingConfig,
    base: Base,
    listing: Listing,
    columns: PlanColumns,
    intake: Intake,
    state: NDArray[np.int8],
    rows: NDArray[np.int64],
    base_rows: NDArray[np.int64],
) -> Selection:
    """Chooses among the readable items.

    Args:
        state, rows: [readable] see `Delta`.
        base_rows: [readable] rows of the base's listing, -1 for none.
    """
    ids, base_splits = listing.numbers["row"], base.index.splits
    union = _Union(listing, columns, NodePaths(base.index.taxonomy))
    splits = np.full(len(rows), DROPPED, dtype=np.int8)
    former = splits.copy()
    stored = state == _STORED
    splits[stored] = base_splits[ids[rows[stored]]]
    replaced = np.flatnonzero((state == _READ) & (base_rows >= 0))
    replaced = replaced[ids[base_rows[replaced]] >= 0]
    former[replaced] = base_splits[ids[base_rows[replaced]]]
    base_positions = np.flatnonzero(ids >= 0)
    all_columns = union.columns(state == _READ, rows, intake.scratch.columns("items"))
    inherited = inherit_splits(
        all_columns,
        config.split,
        splits=splits,
        former=former,
        rank=state,
        base=union.columns(np.zeros(len(base_positions), dtype=bool), base_positions, intake.scratch.columns("base")),
        base_splits=base_splits[ids[base_positions]],
        labels=len(base.index.label_names),
    )
    return select_samples(
        all_columns,
        split=config.split,
        duplicates=config.duplicates,
        caps=config.caps,
        label_names=tuple(intake.labels),
        inherited=inherited,
    )


class _Union:
    """The columns of images of which some are in the base's listing and others were read."""

    def __init__(self, listing: Listing, columns: PlanColumns, paths: NodePaths) -> None:
        self._listing = listing
        self._columns = columns
        codes = {name: code for code, name in enumerate(listing.family_names)}
        read = [codes.setdefault(name, len(codes)) for name in columns.family_names]
        nodes = [paths.number(path) for path in columns.node_paths]
        self._family_names, self._node_paths = tuple(codes), tuple(paths)
        self._read: dict[str, NDArray[Any]] = {
            "family": np.array(read, dtype=np.int16)[columns.family],
            "node": np.array(nodes, dtype=np.int32)[columns.node],
        }

    def columns(self, read: NDArray[np.bool_], rows: NDArray[np.int64], folder: Path) -> PlanColumns:
        """The columns of some images.

        Args:
            read: [images] whether the image was read.
            rows: [images] row of the columns of the read items, or of the listing.
            folder: folder for the files of the columns.
        """
        columns: dict[str, Any] = {}
        new, listed = rows[read], rows[~read]
        for name in PLAN_COLUMNS:
            values_read: NDArray[Any] = self._read.get(name, getattr(self._columns, name))
            values = mapped_numbers(folder / name, values_read.dtype, len(rows))
            values[read] = values_read[new]
            if name == "node":
                values[~read] = np.maximum(self._listing.numbers[name][listed], 0)
            elif name != "difference_hash":  # A delta does not remove near duplicates.
                values[~read] = self._listing.numbers[name][listed]
            columns[name] = values
        starts = np.array([0, len(rows)], dtype=np.int64)
        return PlanColumns(starts=starts, family_names=self._family_names, node_paths=self._node_paths, **columns)
