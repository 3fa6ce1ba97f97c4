"""A delta: what a source has that its base has not, and what of the base is gone; only what is new or changed is read.

    list the source -> compare with the base's listing -> read what is new, changed or without a stamp
        -> choose over all items: splits, duplicates, caps -> read what was left out before and is wanted now -> choose

Duplicates and caps are decided over all items in the order of the source, as a full run would: the listing has what
that takes. So an image that was left out as a copy comes back when the one that stood for it goes.
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

# What is known of an item of the source; the numbers are ranks, of repeats one with the lowest stays.
_STORED, _READ, _LEFT_OUT, _UNREADABLE = range(4)


@dataclass(frozen=True, eq=False)
class Delta:
    """What a delta stores, and what it takes over.

    Attributes:
        base: what it adds to.
        listing: the base's.
        all_label_names: the base's, then those that are new.
        labels: their numbers, see `label_numbers`: rare classes that are new may be dropped.
        chunks, columns: what was read.
        numbers: the source's items.
        live: [items] places of the items that are images, ascending.
        kind: [live] _STORED or _LEFT_OUT by the base, or _READ.
        at: [live] places in the base's listing, or rows of `columns` for what was read.
        chosen: [live] splits.
        before: [items] places in the base's listing of the items with the same names.
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
        """Those of classes that were not dropped."""
        return [name for name, number in zip(self.all_label_names, self.labels, strict=False) if number != GONE]

    @property
    def new_rows(self) -> NDArray[np.int64]:
        """Rows of `columns` that are stored, ascending."""
        return np.sort(self.at[(self.kind == _READ) & (self.chosen.splits != DROPPED)])

    @property
    def kept_places(self) -> NDArray[np.int64]:
        """Places in the base's listing of what the delta takes over, ascending."""
        return np.sort(self.at[(self.kind == _STORED) & (self.chosen.splits != DROPPED)])

    @property
    def was_read(self) -> NDArray[np.bool_]:
        """[live] whether `at` is a row of `columns`."""
        return self.kind == _READ

    def chosen_rows(self) -> Chosen:
        """The choice for the rows of `columns`."""
        splits = np.full(len(self.columns), DROPPED, dtype=np.int8)
        read = self.was_read
        splits[self.at[read]] = self.chosen.splits[read]
        return replace(self.chosen, splits=splits)

    def gone(self) -> tuple[NDArray[np.int64], list[str]]:
        """Places in the base's listing of what it stores and the delta does not, ascending; and why not."""
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
        """For the card: how many samples are new, changed, removed, live."""
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
    """Compares a source with its base, reads what is needed, and chooses.

    Args:
        intake: its `labels` are those of the base, then the new ones.
    Raises:
        InputError: a class that is new is too small to be in every split, if possible before anything is read.
        WorkError: more items are unreadable than is allowed.
    """
    listing = Listing.open(base.artifact, intake.scratch.columns("listing"))
    sizes = LabelSizes(config.split, base.index.label_names)
    items = sizes.through(collection.items())
    numbers = SourceNumbers.of(items, collection.total, progress, intake.scratch.columns("source"))
    before = matched(numbers, listing)
    # An item that has another label than in the base keeps its split, so that its new class may be small.
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
                labels=label_numbers(
                    len(intake.labels), chosen.kept.rare if config.split.rare_classes == "drop" else ()
                ),
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
    """The collection's items at some places."""
    chosen = np.zeros(count, dtype=bool)
    chosen[wanted] = True

    def items() -> Iterator[Item]:
        return compress(collection.items(), chosen)

    return replace(collection, items=items, total=len(wanted))


def _numbers_in_intake(intake: Intake, chunks: list[ChunkFacts], first: int) -> NDArray[np.int64]:
    """[rows] which of the items of one intake each row is."""
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
    """What was read and is what it was, is the base's after all: a file that was only touched, one without a stamp."""
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
    """What becomes of the items that are images.

    Args:
        kind, at: [live] see `Delta`.
        before: [live] places in the base's listing.
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
    """Columns of images of which some are known from a listing and some were read."""

    def __init__(self, listing: Listing, columns: Columns, paths: Paths) -> None:
        self._listing = listing
        self._columns = columns
        codes = {name: code for code, name in enumerate(listing.source_names)}
        read = [codes.setdefault(name, len(codes)) for name in columns.source_names]
        nodes = [paths.code(path) for path in columns.node_paths]
        self._source_names, self._node_paths = tuple(codes), tuple(paths)
        self._read: dict[str, NDArray[Any]] = {
            "source": np.array(read, dtype=np.int16)[columns.source],
            "node": np.array(nodes, dtype=np.int32)[columns.node],
        }

    def columns(self, read: NDArray[np.bool_], at: NDArray[np.int64], folder: Path) -> Columns:
        """The columns of images.

        Args:
            read: [images] whether `at` is a row of what was read, not a place in the listing.
            folder: for their files.
        """
        made: dict[str, Any] = {}
        new, listed = at[read], at[~read]
        for name in Columns.planned():
            whole: NDArray[Any] = self._read.get(name, getattr(self._columns, name))
            values = mapped_numbers(folder / name, whole.dtype, len(at))
            values[read] = whole[new]
            if name == "node":
                values[~read] = np.maximum(self._listing.numbers[name][listed], 0)
            elif name != "look":  # Near-duplicates are not looked for in a delta.
                values[~read] = self._listing.numbers[name][listed]
            made[name] = values
        starts = np.array([0, len(at)], dtype=np.int64)
        return Columns(starts=starts, source_names=self._source_names, node_paths=self._node_paths, **made)
