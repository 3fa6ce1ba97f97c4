"""The three modes of shard-dataset: a full run, an index of tars in place, and a delta to a base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pipeline.sharding.card.contact_sheet import encoded_image
from pipeline.sharding.card.page.left_out import EqualSet, equal_images
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.deltas.delta import read_delta
from pipeline.sharding.deltas.delta_base import Base
from pipeline.sharding.deltas.delta_index import (
    delta_index,
    delta_listing,
    delta_numbering,
    is_empty,
    used_key_hashes,
    write_tombstones,
)
from pipeline.sharding.deltas.items_table import chunk_listings, ids_by_row, write_listing
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.shard_locations import ShardLocations, is_own
from pipeline.sharding.sources.base import Collection
from pipeline.sharding.writing.chunks import ChunkResult, PlanColumns, key_of_row, name_of_row
from pipeline.sharding.writing.duplicates import DROPPED
from pipeline.sharding.writing.index_tars import index_in_place
from pipeline.sharding.writing.intake import Intake, nothing_usable_error, run_intake
from pipeline.sharding.writing.numbering import Numbering, build_numbering
from pipeline.sharding.writing.plan import Plan, ShardSize, arrange, build_plan
from pipeline.sharding.writing.rare_classes import label_numbers
from pipeline.sharding.writing.scratch import Scratch
from pipeline.sharding.writing.shards import index_pieces, write_shards
from pipeline.sharding.writing.split_sizes import split_size_notes
from pipeline.stage import NothingNew, Workspace

ReadImage = Callable[[int], bytes]


@dataclass(frozen=True, eq=False)
class ShardingResult:
    """The result of a run, for the card.

    Attributes:
        index: all samples of the artifact.
        plan: of the samples that this run stored.
        chunks: results of the chunks that this run read.
        base: the base of a delta, or None.
        changes: of a delta, the numbers of new, changed and removed samples.
        equal_sets: some sets of equal images, for the card; empty for a delta.
        rare_classes: name of each rare class -> number of its images.
        notes: sentences on the splits, from `split_size_notes`; empty for a delta.
    """

    index: SampleIndex
    plan: Plan
    chunks: list[ChunkResult]
    base: Base | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    equal_sets: Sequence[EqualSet] = ()
    rare_classes: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def image_reader(self, work: Workspace) -> ReadImage:
        """A function from a sample's id to its encoded image."""
        read_new = partial(encoded_image, self.index, work.output)
        if self.base is None:
            return read_new
        index, locations = self.index, ShardLocations(self.base.artifact, self.index.shard_names)

        def read_image(id: int) -> bytes:
            shard = int(index.shards[id])
            if is_own(index.shard_names[shard]):
                return read_new(id)
            return locations.read(shard, int(index.offsets[id]), int(index.lengths[id]))

        return read_image


def write_all(config: ShardingConfig, collection: Collection, intake: Intake, work: Workspace) -> ShardingResult:
    """Shards the whole source, or indexes its tars in place."""
    scratch = intake.scratch
    chunks = run_intake(collection, intake, runner=config.runner, writers=config.writers, progress=work.progress)
    if not any(result.row_count for result in chunks):
        raise nothing_usable_error(collection.total, chunks)
    work.progress(note="planning the shards")
    columns = PlanColumns.load(scratch, chunks)
    plan = build_plan(
        columns,
        partial(key_of_row, scratch, columns),
        split=config.split,
        duplicates=config.duplicates,
        caps=config.caps,
        size=_size(config),
        label_names=collection.label_names,
    )
    if not len(plan.rows):
        raise nothing_usable_error(collection.total, chunks)
    dropped = plan.assignment.dropped_labels
    labels = label_numbers(len(collection.label_names), dropped)
    rare_classes = _by_name(plan.assignment.rare_classes, collection.label_names)
    label_names = [name for number, name in enumerate(collection.label_names) if number not in dropped]
    if collection.tars:
        work.progress(note="putting the index together")
        index = index_in_place(work.output, scratch, columns, plan, collection, labels, label_names)
    else:
        numbering = build_numbering(scratch, columns, plan.rows, collection.root, labels)
        _write_shards(config, scratch, columns, plan, numbering, work)
        index = SampleIndex.assemble(
            index_pieces(scratch, plan.shard_names),
            scratch.columns("index"),
            shard_names=plan.shard_names,
            label_names=label_names,
            taxonomy=numbering.taxonomy,
        )
        index.write(work.output)
        id_of_row = ids_by_row(len(columns), plan.rows, np.arange(len(plan.rows)))
        write_listing(work.output, chunk_listings(scratch, columns, id_of_row, numbering))
    equal_sets = equal_images(
        columns,
        plan,
        partial(key_of_row, scratch, columns),
        partial(name_of_row, scratch, columns),
        collection.label_names,
    )
    notes = tuple(split_size_notes(columns, plan.assignment.splits, config.split))
    return ShardingResult(index, plan, chunks, equal_sets=equal_sets, rare_classes=rare_classes, notes=notes)


def write_delta(
    config: ShardingConfig, base: Base, collection: Collection, intake: Intake, work: Workspace
) -> ShardingResult:
    """Stores the new samples of a delta, and lists the base's samples that are gone.

    Raises:
        NothingNew: no sample is new or gone.
    """
    scratch = intake.scratch
    delta = read_delta(config, base, collection, intake, work.progress)
    if is_empty(delta):
        raise NothingNew(base.artifact)
    if not (delta.selection.splits != DROPPED).any():
        raise nothing_usable_error(len(delta.hashes), delta.chunks)
    work.progress(note="planning the shards")
    plan = arrange(
        delta.columns,
        partial(key_of_row, scratch, delta.columns),
        delta.new_rows,
        delta.selection_of_columns(),
        _size(config),
        used_key_hashes(delta),
    )
    numbering = delta_numbering(delta, plan, collection.root)
    _write_shards(config, scratch, delta.columns, plan, numbering, work)
    index = delta_index(scratch, delta, plan, numbering)
    index.write(work.output)
    write_listing(work.output, delta_listing(scratch, delta, plan, numbering))
    changes = delta.counts(write_tombstones(work.output, delta))
    rare_classes = _by_name(delta.selection.assignment.rare_classes, delta.all_label_names)
    return ShardingResult(index, plan, delta.chunks, base, changes, rare_classes=rare_classes)


def _by_name(rare: Mapping[int, int], names: Sequence[str]) -> dict[str, int]:
    return {names[label]: images for label, images in sorted(rare.items())}


def _size(config: ShardingConfig) -> ShardSize:
    return ShardSize.of_megabytes(config.samples_per_shard, config.shard_megabytes)


def _write_shards(
    config: ShardingConfig, scratch: Scratch, columns: PlanColumns, plan: Plan, numbering: Numbering, work: Workspace
) -> None:
    write_shards(
        work.output,
        scratch,
        columns,
        plan,
        numbering,
        runner=config.runner,
        writers=config.writers,
        progress=work.progress,
    )
