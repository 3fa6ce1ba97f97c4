"""The stage compact-shards: merges a delta and its bases into one artifact that needs no other.

Keys, splits, labels, captions and all numbers stay; the tars are rewritten in the order of a full run. The bytes of a
sample's members are copied, including headers, and its image is checked against its hash. A tar that an earlier run
finished is not written again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.artifacts import Artifact
from pipeline.atomic_files import atomic_write
from pipeline.config import Config, unkeyed
from pipeline.counter_rng import text_hash
from pipeline.errors import DamagedError, InputError
from pipeline.json_file import write_json
from pipeline.machine import default_threads
from pipeline.sharding.card.data_card import markdown
from pipeline.sharding.card.headline import shards_headline
from pipeline.sharding.deltas.delta_base import RECIPE_FILE, STAGES, read_recipe
from pipeline.sharding.deltas.delta_index import TOMBSTONES_FILE
from pipeline.sharding.deltas.items_table import ROW_GROUP, Listing, write_listing
from pipeline.sharding.format.index import SampleIndex, content_hash, replace_columns
from pipeline.sharding.format.item_names import LISTING_FILE
from pipeline.sharding.format.shard_locations import ShardLocations, is_own, owner_of, qualified_name
from pipeline.sharding.format.tar_layout import BLOCK, END_BYTES
from pipeline.sharding.format.tars_file import TARS_FILE
from pipeline.sharding.writing.plan import ShardSize, order_in_splits, shard_edges, shard_names_of
from pipeline.sharding.writing.runner import Stop, StoppedEarlyError, not_stopping, run_with_progress
from pipeline.sharding.writing.scratch import Scratch
from pipeline.sharding.writing.shards import link_shard
from pipeline.stage import NothingNew, Workspace

_OFFSET_BITS = 42  # for tars of up to 4 TB
_BUFFER_BYTES = 4 << 20
_SAMPLES_PER_STOP_CHECK = 64
_BATCH_ROWS = 1 << 16
# Files that are rewritten; all others describe the same samples and are copied.
_CARD = ("data_card.json", "data_card.md", "data_card.html")
_REWRITTEN = ("index.arrow", "index.parquet", LISTING_FILE, RECIPE_FILE, *_CARD, TOMBSTONES_FILE)


class CompactConfig(Config):
    """The maximum size of the new shards."""

    samples_per_shard: int | None = Field(
        None, ge=1, le=1_000_000, description="Maximum number of samples in a shard (one tar). null: as in the delta."
    )
    shard_megabytes: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Maximum size of a shard (one tar) in MB (10^6 bytes). null: as in the delta.",
    )
    writers: int = unkeyed(
        default_threads(), ge=1, le=4096, description="Number of shards that are written concurrently."
    )


def check_compactable(artifact: Artifact) -> None:
    """Checks that an artifact is a shards artifact with its own tars and a listing.

    Raises:
        InputError: it is not; the message says what it is.
    """
    if artifact.stage not in STAGES:
        raise InputError(f"compact: {artifact.name} is of {artifact.stage}; give an artifact of {' or '.join(STAGES)}")
    if TARS_FILE in artifact.files:
        raise InputError(f"compact: {artifact.name} is an index of tars in place; there is nothing to compact")
    if LISTING_FILE not in artifact.files:
        raise InputError(f"compact: {artifact.name} is of a version without deltas; there is nothing to compact")


@dataclass(frozen=True, eq=False)
class _Tar:
    """A tar to be written.

    Attributes:
        ids: [samples] ids in the delta's index, in the order of the tar.
        size: size of the complete tar in bytes.
    """

    name: str
    ids: NDArray[np.int64]
    size: int


class CompactShards:
    """Inputs {"shards"}: a delta; output: a shards artifact with the same samples that needs no other."""

    name: ClassVar[str] = "compact-shards"
    version: ClassVar[int] = 2

    def run(self, config: CompactConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        shards = inputs["shards"]
        check_compactable(shards)
        index = SampleIndex.open(shards)
        if all(is_own(name) for name in index.shard_names):
            raise NothingNew(shards)
        recipe = read_recipe(shards)
        size = ShardSize.of_megabytes(
            config.samples_per_shard or recipe["samples_per_shard"],
            config.shard_megabytes or recipe["shard_megabytes"],
        )
        work.progress(note="planning the shards")
        locations = ShardLocations(shards, index.shard_names)
        starts, lengths = _spans(shards, index, locations)
        order = np.fromiter((text_hash(key.as_py()) for key in index.keys), np.uint64, len(index))
        ids = order_in_splits(index.splits, order)
        edges = shard_edges(index.splits[ids], lengths[ids], size)
        names = shard_names_of(index.splits[ids[edges[:-1]]])
        tars = [
            _Tar(name, ids[start:end], int(lengths[ids[start:end]].sum()) + END_BYTES)
            for name, (start, end) in zip(names, pairwise(edges.tolist()), strict=True)
        ]
        scratch = Scratch(work.scratch.absolute())
        scratch.prepare()
        run_with_progress(
            partial(_write_tar, scratch, _SampleRanges(index, locations, starts, lengths)),
            tars,
            runner="threads",
            writers=config.writers,
            progress=work.progress,
            total=len(ids),
            note="copying samples",
        )

        work.progress(note="putting the index together")
        (work.output / "shards").mkdir()
        for name in names:
            link_shard(scratch.tar(name), work.output / name)
        new = _index(scratch, index, ids, edges, names, lengths)
        new.write(work.output)
        _write_listing(work.output, Listing.open(shards, scratch.columns("listing")), ids)
        _copy_unchanged_files(work.output, shards)
        write_json(
            work.output / RECIPE_FILE,
            {**recipe, "samples_per_shard": size.samples, "shard_megabytes": size.bytes and size.bytes / 1e6},
        )
        card = {name: value for name, value in json.loads(shards.read("data_card.json")).items() if name != "delta"}
        card["compacted"] = shards.name
        write_json(work.output / "data_card.json", card)
        (work.output / "data_card.md").write_text(markdown(card), encoding="utf-8")
        unchanged = {name: value for name, value in shards.summary.items() if name not in ("new", "changed", "removed")}
        megabytes = round(sum(tar.size for tar in tars) / 1e6, 1)
        summary = {**unchanged, "shards": len(names), "megabytes": megabytes}
        return {**summary, "headline": shards_headline(summary)}


@dataclass(frozen=True, eq=False)
class _SampleRanges:
    """The byte ranges of samples in their tars, including headers.

    Attributes:
        starts, lengths: [rows of the index] in bytes.
    """

    index: SampleIndex
    locations: ShardLocations
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def _write_tar(scratch: Scratch, ranges: _SampleRanges, tar: _Tar, *, stop: Stop = not_stopping) -> int:
    """The task: writes a tar unless it exists; returns the number of samples."""
    path = scratch.tar(tar.name)
    if path.exists() and path.stat().st_size == tar.size:
        return len(tar.ids)
    index = ranges.index
    descriptors: dict[int, int] = {}
    buffer = bytearray()
    try:
        with atomic_write(path) as temporary, temporary.open("wb", buffering=0) as file:
            for position, id in enumerate(tar.ids.tolist()):
                if position % _SAMPLES_PER_STOP_CHECK == 0 and stop():
                    raise StoppedEarlyError
                shard = int(index.shards[id])
                if shard not in descriptors:
                    descriptors[shard] = os.open(ranges.locations.path(shard), os.O_RDONLY | os.O_CLOEXEC)
                sample = os.pread(descriptors[shard], int(ranges.lengths[id]), int(ranges.starts[id]))
                _check(ranges, id, sample)
                buffer += sample
                if len(buffer) >= _BUFFER_BYTES:
                    file.write(buffer)
                    buffer.clear()
            file.write(buffer + bytes(END_BYTES))
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    return len(tar.ids)


def _check(ranges: _SampleRanges, id: int, sample: bytes) -> None:
    """Raises a DamagedError if the bytes of a sample have not the key or the image that the index states."""
    index = ranges.index
    start = int(index.offsets[id] - ranges.starts[id])
    image = sample[start : start + int(index.lengths[id])]
    if not sample.startswith(f"{index.key(id)}.".encode()) or content_hash(image) != index.content_hash(id):
        shard = index.shard_names[int(index.shards[id])]
        raise DamagedError(
            f"{shard}, sample {index.key(id)} at byte {int(index.offsets[id])}: the bytes are not those that were "
            "written; `tutelage artifacts verify` says what else is damaged"
        )


def _spans(
    shards: Artifact, index: SampleIndex, locations: ShardLocations
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """([rows] offset of each sample in its tar, [rows] its length), both including headers and all members.

    A sample ends where the next one in its tar begins. The index of the artifact that contains the tar has all samples
    of the tar, including those that later deltas removed.
    """
    lengths = np.zeros(len(index), dtype=np.int64)
    shards_of_owner: dict[str, list[int]] = {}
    for number, name in enumerate(index.shard_names):
        shards_of_owner.setdefault(owner_of(name) or shards.name, []).append(number)
    for artifact_name, numbers in shards_of_owner.items():
        owner = index if artifact_name == shards.name else SampleIndex.open(shards.in_same_store(artifact_name))
        number_in_owner = {qualified_name(artifact_name, name): number for number, name in enumerate(owner.shard_names)}
        in_owner = np.full(len(index.shard_names), -1, dtype=np.int64)
        in_owner[numbers] = [
            number_in_owner.get(qualified_name(artifact_name, index.shard_names[number]), -1) for number in numbers
        ]
        tar_bytes = np.zeros(len(owner.shard_names), dtype=np.int64)
        tar_bytes[in_owner[numbers]] = [locations.size(number) for number in numbers]

        positions = np.sort(_tar_position(owner.shards, owner.offsets))
        shard, offset = positions >> _OFFSET_BITS, positions & ((1 << _OFFSET_BITS) - 1)
        last = np.append(shard[1:] != shard[:-1], True)
        ends = np.where(last, tar_bytes[shard] - END_BYTES, np.append(offset[1:], 0) - BLOCK)
        rows = np.flatnonzero(in_owner[index.shards] >= 0)
        wanted = _tar_position(in_owner[index.shards[rows]], index.offsets[rows])
        nearest = np.minimum(np.searchsorted(positions, wanted), len(positions) - 1)
        if (in_owner[numbers] < 0).any() or not np.array_equal(positions[nearest], wanted):
            raise DamagedError(f"{shards.name}: its index and that of {artifact_name} differ; re-run {shards.stage}")
        lengths[rows] = ends[nearest] - (index.offsets[rows] - BLOCK)
    return index.offsets - BLOCK, lengths


def _tar_position(shards: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Packs shard number and byte offset into one integer."""
    return (shards.astype(np.int64) << _OFFSET_BITS) | offsets


def _index(
    scratch: Scratch,
    index: SampleIndex,
    ids: NDArray[np.int64],
    edges: NDArray[np.int64],
    names: Sequence[str],
    lengths: NDArray[np.int64],
) -> SampleIndex:
    """The index of the new tars.

    Args:
        ids: ids in the delta's index, in the order of the new ids.
        edges: see `Plan`.
        lengths: [rows of the delta's index] bytes of each sample in its tar.
    """
    sizes = np.diff(edges)
    ends = np.cumsum(lengths[ids])
    shards = np.repeat(np.arange(len(names), dtype=np.int32), sizes)
    starts = ends - lengths[ids] - np.repeat(np.append(0, ends)[edges[:-1]], sizes)

    def pieces() -> Iterator[pa.Table]:
        for start in range(0, len(ids), _BATCH_ROWS):
            some = slice(start, start + _BATCH_ROWS)
            table = index.table.take(pa.array(ids[some])).combine_chunks()
            yield replace_columns(table, {"shard": pa.array(shards[some]), "offset": pa.array(starts[some] + BLOCK)})

    return SampleIndex.assemble(
        pieces(),
        scratch.columns("index"),
        shard_names=names,
        label_names=index.label_names,
        taxonomy=index.taxonomy,
    )


def _write_listing(folder: Path, listing: Listing, ids: NDArray[np.int64]) -> None:
    number = np.empty(len(ids) + 1, dtype=np.int64)
    number[ids] = np.arange(len(ids))
    number[-1] = -1  # For items that are not stored, which have row -1.
    rows = number[listing.numbers["row"]]
    batches = (np.arange(start, min(start + ROW_GROUP, len(rows))) for start in range(0, len(rows), ROW_GROUP))
    write_listing(folder, (listing.rows(some, row=rows[some]) for some in batches))


def _copy_unchanged_files(folder: Path, shards: Artifact) -> None:
    """Copies the files that do not change: labels, taxonomy, quarantine, pictures."""
    for name in shards.files:
        if not is_own(name) and name not in _REWRITTEN:
            shutil.copyfile(shards.path(name), folder / name)
