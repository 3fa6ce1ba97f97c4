"""A delta: items of a source that its base lacks, and samples of the base that are gone; only changes are read.

    list the source -> compare with the base's listing -> read items that are new, changed or without a stamp
        -> choose over all items: splits, duplicates, caps -> read chosen items that the base left out -> choose again

Duplicates and caps are decided over all items in source order, as in a full run: the listing has the hashes for that.
So an image that was dropped as a copy is stored once the copy that was stored is removed.
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
from pipeline.sharding.deltas.diff_with_base import SourceNumbers, matched, unchanged
from pipeline.sharding.deltas.inherited_splits import settle
from pipeline.sharding.deltas.items_table import Listing
from pipeline.sharding.format.mapped_columns import mapped_numbers
from pipeline.sharding.format.taxonomy import Paths
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.writing.chunks import ChunkFacts, Columns, read_table
from pipeline.sharding.writing.duplicates import DROPPED
from pipeline.sharding.writing.intake import Intake, nothing_usable, take_in
from pipeline.sharding.writing.plan import Chosen, choose
from pipeline.sharding.writing.rare_classes import GONE, LabelSizes, label_numbers

# The state of an item of the source; the values are ranks: of repeated samples, the one with the lowest stays.
_STORED, _READ, _LEFT_OUT, _UNREADABLE = range(4)


@dataclass(frozen=True, eq=False)
class Delta:
    """The samples that a delta stores, and those that it takes over from its base.

    Attributes:
        base: the base of the delta.
        listing: the base's listing.
        all_label_names: the base's, then the new ones.
        labels: their numbers, see `label_numbers`: rare new classes may be dropped.
        chunks, columns: the items that were read.
        numbers: the source's items.
        live: indices of the readable items in source order, ascending.
        kind: [live] _STORED or _LEFT_OUT by the base, or _READ.
        at: [live] rows of the base's listing, or rows of `columns` for items that were read.
        chosen: [live] splits.
        before: [items] row of the base's listing with the same name, -1 for none.
    """

    base: Base
    listing: Listing
    all_label_names: tuple[str, ...]
    labels: NDArray[np.int32]
    chunks: list[ChunkFacts]
    columns: Columns
    numbers: SourceNumbers
    live: NDArray[np.int64]
    kind: NDArray[np.int8]
    at: NDArray[np.int64]
    chosen: Chosen
    before: NDArray[np.int64]

    @property
    def label_names(self) -> list[str]:
        """The label names without dropped classes."""
        return [name for name, number in zip(self.all_label_names, self.labels, strict=False) if number != GONE]

    @property
    def new_rows(self) -> NDArray[np.int64]:
        """Rows of `columns` that are stored, ascending."""
        return np.sort(self.at[(self.kind == _READ) & (self.chosen.splits != DROPPED)])

    @property
    def kept_places(self) -> NDArray[np.int64]:
        """Rows of the base's listing that the delta takes over, ascending."""
        return np.sort(self.at[(self.kind == _STORED) & (self.chosen.splits != DROPPED)])

    @property
    def was_read(self) -> NDArray[np.bool_]:
        """[live] whether `at` is a row of `columns`."""
        return self.kind == _READ

    def chosen_rows(self) -> Chosen:
        """`chosen` for the rows of `columns`."""
        splits = np.full(len(self.columns), DROPPED, dtype=np.int8)
        read = self.was_read
        splits[self.at[read]] = self.chosen.splits[read]
        return replace(self.chosen, splits=splits)

    def gone(self) -> tuple[NDArray[np.int64], list[str]]:
        """(rows of the base's listing that the base stores and the delta does not, ascending; the reason of each)."""
        listing = self.listing
        stored = np.flatnonzero(listing.numbers["row"] >= 0)
        places = np.setdiff1d(stored, self.kept_places, assume_unique=True)
        item_of = np.full(len(listing), -1, dtype=np.int64)
        there = self.before >= 0
        item_of[self.before[there]] = np.flatnonzero(there)
        live_of = np.full(len(self.numbers), -1, dtype=np.int64)
        live_of[self.live] = np.arange(len(self.live))
        why = []
        for item in item_of[places].tolist():
            live = int(live_of[item]) if item >= 0 else -1
            if item < 0:
                why.append("removed")
            elif live < 0:
                why.append("unreadable")
            elif self.kind[live] == _READ:
                why.append("changed")
            else:
                why.append("duplicate" if self.chosen.kept.splits[live] == DROPPED else "capped")
        return places, why

    def counts(self, gone: list[str]) -> dict[str, Any]:
        """For the card: numbers of new, changed, removed and live samples."""
        read = self.was_read & (self.chosen.splits != DROPPED)
        before = self.before[self.live[read]]
        changed = int((self.listing.numbers["row"][before[before >= 0]] >= 0).sum())
        return {
            "base": self.base.artifact.uri,
            "base_samples": len(self.base.index),
            "new": int(read.sum()) - changed,
            "changed": changed,
            "removed": len(gone) - changed,
            "live": int((self.chosen.splits != DROPPED).sum()),
            "why": dict(sorted(Counter(gone).items())),
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
    items = sizes.through(collection.items())
    numbers = SourceNumbers.of(items, collection.total, progress, intake.scratch.columns("source"))
    before = matched(numbers, listing)
    # An item with another label than in the base keeps its split, so its new class is exempt from the check.
    sizes.check(collection.label_names, [name for name, at in sizes.places.items() if (before[at] >= 0).any()])
    same = unchanged(numbers, listing, before, trust_names=config.trust_names)
    kind = np.full(len(numbers), _UNREADABLE, dtype=np.int8)
    at = np.where(same, before, -1)
    kind[same] = np.where(listing.numbers["row"][before[same]] >= 0, _STORED, _LEFT_OUT)
    wanted = np.flatnonzero(~same)
    chunks: list[ChunkFacts] = []
    first = True
    while True:
        rows = sum(facts.rows for facts in chunks)
        more = take_in(
            _only(collection, wanted, len(numbers)),
            intake,
            runner=config.runner,
            writers=config.writers,
            progress=progress,
            first_chunk=len(chunks),
        )
        places = wanted[_numbers_in_intake(intake, more, len(chunks))]
        chunks += more
        columns = Columns.load(intake.scratch, chunks)
        kind[wanted] = _UNREADABLE
        kind[places] = _READ
        at[places] = np.arange(rows, len(columns))
        if first:
            _take_back(listing, columns, numbers, before, places, kind, at)
            first = False
        live = np.flatnonzero(kind != _UNREADABLE)
        if not live.size:
            raise nothing_usable(len(numbers), chunks)
        chosen = _choose(config, base, listing, columns, intake, kind[live], at[live], before[live])
        wanted = live[(kind[live] == _LEFT_OUT) & (chosen.splits != DROPPED)]
        if not wanted.size:
            return Delta(
                base=base,
                listing=listing,
                all_label_names=tuple(intake.labels),
                labels=label_numbers(len(intake.labels), chosen.kept.dropped_labels),
                chunks=chunks,
                columns=columns,
                numbers=numbers,
                live=live,
                kind=kind[live],
                at=at[live],
                chosen=chosen,
                before=before,
            )


def _only(collection: Collection, wanted: NDArray[np.int64], count: int) -> Collection:
    """The collection with only the items at the indices `wanted`."""
    chosen = np.zeros(count, dtype=bool)
    chosen[wanted] = True

    def items() -> Iterator[Item]:
        return compress(collection.items(), chosen)

    return replace(collection, items=items, total=len(wanted))


def _numbers_in_intake(intake: Intake, chunks: list[ChunkFacts], first: int) -> NDArray[np.int64]:
    """[rows] index of each row's item among the items of one intake."""
    found = [np.empty(0, dtype=np.int64)]
    start = 0
    for chunk, facts in enumerate(chunks, first):
        found.append(read_table(intake.scratch, chunk).column("number").to_numpy() + start)
        start += facts.items
    return np.concatenate(found)


def _take_back(
    listing: Listing,
    columns: Columns,
    numbers: SourceNumbers,
    before: NDArray[np.int64],
    places: NDArray[np.int64],
    kind: NDArray[np.int8],
    at: NDArray[np.int64],
) -> None:
    """Marks items that were read and found unchanged as the base's: e.g. a touched file, or an item without stamp."""
    old, rows = before[places], at[places]
    theirs = listing.numbers
    same = (
        (old >= 0)
        & (theirs["facts"][old] == numbers.facts[places])
        & (theirs["hash_high"][old] == columns.hash_high[rows])
        & (theirs["hash_low"][old] == columns.hash_low[rows])
    )
    places, old = places[same], old[same]
    at[places] = old
    kind[places] = np.where(theirs["row"][old] >= 0, _STORED, _LEFT_OUT)


def _choose(
    config: ShardingConfig,
    base: Base,
    listing: Listing,
    columns: Columns,
    intake: Intake,
    kind: NDArray[np.int8],
    at: NDArray[np.int64],
    before: NDArray[np.int64],
) -> Chosen:
    """Chooses among the readable items.

    Args:
        kind, at: [live] see `Delta`.
        before: [live] rows of the base's listing, -1 for none.
    """
    row, base_splits = listing.numbers["row"], base.index.splits
    union = _Union(listing, columns, Paths.of(base.index.taxonomy))
    splits = np.full(len(at), DROPPED, dtype=np.int8)
    former = splits.copy()
    stored = kind == _STORED
    splits[stored] = base_splits[row[at[stored]]]
    replaced = np.flatnonzero((kind == _READ) & (before >= 0))
    replaced = replaced[row[before[replaced]] >= 0]
    former[replaced] = base_splits[row[before[replaced]]]
    of_base = np.flatnonzero(row >= 0)
    all_columns = union.columns(kind == _READ, at, intake.scratch.columns("items"))
    settled = settle(
        all_columns,
        config.split,
        splits=splits,
        former=former,
        rank=kind,
        base=union.columns(np.zeros(len(of_base), dtype=bool), of_base, intake.scratch.columns("base")),
        base_splits=base_splits[row[of_base]],
        labels=len(base.index.label_names),
    )
    return choose(
        all_columns,
        split=config.split,
        duplicates=config.duplicates,
        caps=config.caps,
        label_names=tuple(intake.labels),
        settled=settled,
    )


class _Union:
    """Columns of images from two origins: a listing, and items that were read."""

    def __init__(self, listing: Listing, columns: Columns, paths: Paths) -> None:
        self._listing = listing
        self._columns = columns
        codes = {name: code for code, name in enumerate(listing.source_names)}
        read = [codes.setdefault(name, len(codes)) for name in columns.source_names]
        nodes = [paths.number(path) for path in columns.node_paths]
        self._source_names, self._node_paths = tuple(codes), tuple(paths)
        self._read: dict[str, NDArray[Any]] = {
            "source": np.array(read, dtype=np.int16)[columns.source],
            "node": np.array(nodes, dtype=np.int32)[columns.node],
        }

    def columns(self, read: NDArray[np.bool_], at: NDArray[np.int64], folder: Path) -> Columns:
        """The columns of images.

        Args:
            read: [images] whether `at` is a row of the read items; otherwise it is a row of the listing.
            folder: folder for the files of the columns.
        """
        made: dict[str, Any] = {}
        new, listed = at[read], at[~read]
        for name in Columns.planned():
            whole: NDArray[Any] = self._read.get(name, getattr(self._columns, name))
            values = mapped_numbers(folder / name, whole.dtype, len(at))
            values[read] = whole[new]
            if name == "node":
                values[~read] = np.maximum(self._listing.numbers[name][listed], 0)
            elif name != "look":  # A delta does not remove near duplicates.
                values[~read] = self._listing.numbers[name][listed]
            made[name] = values
        starts = np.array([0, len(at)], dtype=np.int64)
        return Columns(starts=starts, source_names=self._source_names, node_paths=self._node_paths, **made)
