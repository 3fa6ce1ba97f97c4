"""Writes the planned shards and their index rows, one task per shard.

    plan -> one task per shard: rows from the chunk tables, images from the spools -> tar, index rows

Each image is checked against its content hash while it is copied from the spool to the tar. A shard that an earlier
run finished is not written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.atomic_files import atomic_write
from pipeline.errors import DamagedError
from pipeline.progress import Progress
from pipeline.sharding.format.arrow_file import write_arrow
from pipeline.sharding.format.index import content_hash
from pipeline.sharding.writing.chunks import PlanColumns, read_rows
from pipeline.sharding.writing.index_piece import IndexNumbers, content_hashes, final_keys, index_piece
from pipeline.sharding.writing.numbering import Numbering
from pipeline.sharding.writing.plan import Plan
from pipeline.sharding.writing.runner import RunnerName, Stop, StoppedEarlyError, not_stopping, run_with_progress
from pipeline.sharding.writing.scratch import Scratch
from pipeline.sharding.writing.tar_writer import IMAGE_EXTENSIONS, TarFile, members

_MAX_OPEN_SPOOLS = 128
_SAMPLES_PER_STOP_CHECK = 64
# Columns of a chunk's table that the tar and the index need.
_COLUMNS = (
    "key", "extension", "start", "length", "width", "height", "hash_high", "hash_low", "captions", "notes",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard to be written by one task.

    Attributes:
        chunks, rows: [samples] the chunk of each sample, and its row in that chunk's table.
        numbers: the samples' numbers in the index.
        suffixes: position in the shard -> n, for a sample with the stored key KEY-n.
        done: an earlier run wrote it.
    """

    number: int
    name: str
    split: int
    chunks: NDArray[np.int64]
    rows: NDArray[np.int64]
    numbers: IndexNumbers
    suffixes: dict[int, int]
    done: bool = False

    @property
    def digest(self) -> str:
        """A hash of everything that determines the shard's bytes."""
        hasher = hashlib.sha256(json.dumps([self.number, self.name, self.split, *self.suffixes.items()]).encode())
        numbers = self.numbers
        for column in (self.chunks, self.rows, numbers.groups, numbers.nodes, numbers.families, numbers.labels):
            hasher.update(column.tobytes())
        return hasher.hexdigest()[:32]


def write_shards(
    output: Path,
    scratch: Scratch,
    columns: PlanColumns,
    plan: Plan,
    numbering: Numbering,
    *,
    runner: RunnerName,
    writers: int,
    progress: Progress,
) -> None:
    """Writes shards/*.tar below `output`, and their index rows to the scratch folder: see `index_pieces`.

    Raises:
        DamagedError: the size of a shard differs from the recorded size.
    """
    run_with_progress(
        partial(write_shard, scratch, numbering.family_names),
        _shards(scratch, columns, plan, numbering),
        runner=runner,
        writers=writers,
        progress=progress,
        total=len(plan.rows),
        note="writing shards",
    )
    progress(note="putting the index together")
    (output / "shards").mkdir(exist_ok=True)
    for name in plan.shard_names:
        recorded = _read_record(scratch, name)
        if recorded is None or recorded[1] != _size(scratch.tar(name)):
            raise DamagedError(f"{scratch.tar(name)}: incomplete; run it again")
        link_shard(scratch.tar(name), output / name)


def write_shard(scratch: Scratch, family_names: tuple[str, ...], shard: Shard, *, stop: Stop = not_stopping) -> int:
    """The task: writes a shard and its index rows, unless they exist; returns the number of samples."""
    if shard.done:
        return len(shard.rows)
    scratch.check()
    table = read_rows(scratch, shard.chunks, shard.rows, _COLUMNS)
    keys, contents = final_keys(table, shard.suffixes), content_hashes(table)
    captions = table.column("captions")
    with atomic_write(scratch.tar(shard.name)) as temporary, _Spools(scratch) as spools:
        tar = TarFile(temporary)
        offsets = []
        try:
            for position, (chunk, start, length, extension, metadata) in enumerate(
                zip(
                    shard.chunks.tolist(),
                    *(table.column(name).to_pylist() for name in ("start", "length", "extension", "notes")),
                    strict=True,
                )
            ):
                if position % _SAMPLES_PER_STOP_CHECK == 0 and stop():
                    raise StoppedEarlyError
                image = spools.read(chunk, start, length)
                if content_hash(image) != contents[position]:
                    raise DamagedError(
                        f"{scratch.spool(chunk)}: the image at byte {start} changed since it was read; "
                        f"delete {scratch.folder} and run it again"
                    )
                first = captions[position].as_py()[:1]
                sample = members(keys[position], IMAGE_EXTENSIONS[extension], image, metadata, first)
                offsets.append(tar.add(keys[position], sample)[0])
        finally:
            size = tar.close()
    _write_index_piece(scratch, shard, table, keys, contents, offsets, family_names, size)
    return len(shard.rows)


def _shards(scratch: Scratch, columns: PlanColumns, plan: Plan, numbering: Numbering) -> Iterator[Shard]:
    for number, name in enumerate(plan.shard_names):
        ids = slice(plan.edges[number], plan.edges[number + 1])
        rows = plan.rows[ids]
        chunks, rows_in_chunk = columns.locate(rows)
        shard = Shard(
            number=number,
            name=name,
            split=int(plan.splits[plan.edges[number]]),
            chunks=chunks,
            rows=rows_in_chunk,
            numbers=IndexNumbers.of_rows(columns, numbering, ids, rows),
            suffixes=plan.suffixes_of(rows),
        )
        yield replace(shard, done=_read_record(scratch, name) == (shard.digest, _size(scratch.tar(name))))


def _write_index_piece(
    scratch: Scratch,
    shard: Shard,
    table: pa.Table,
    keys: list[str],
    contents: list[str],
    offsets: list[int],
    family_names: tuple[str, ...],
    size: int,
) -> None:
    """Writes the index rows of a shard, which completes the shard."""
    count = len(keys)
    piece = index_piece(
        table,
        shard.numbers,
        family_names,
        keys=keys,
        contents=contents,
        shards=pa.array(np.full(count, shard.number, np.int32)),
        offsets=pa.array(offsets, pa.int64()),
        splits=np.full(count, shard.split, np.int8),
    ).replace_schema_metadata({"digest": shard.digest, "tar_bytes": str(size)})
    with atomic_write(scratch.index_piece(shard.name)) as temporary, pa.OSFile(str(temporary), "wb") as file:
        write_arrow(file, piece)


def _read_record(scratch: Scratch, name: str) -> tuple[str, int] | None:
    """(digest, tar size in bytes) of a finished shard, from the file of its index rows; None if it is not finished."""
    try:
        with pa.memory_map(str(scratch.index_piece(name))) as file:
            metadata = pa.ipc.open_file(file).schema.metadata
        return metadata[b"digest"].decode(), int(metadata[b"tar_bytes"])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError):
        return None


def index_pieces(scratch: Scratch, shard_names: Sequence[str]) -> Iterator[pa.Table]:
    """Yields the index rows of each shard, in the order of the shards; each table is mapped only while in use."""
    for name in shard_names:
        yield pa.ipc.open_file(pa.memory_map(str(scratch.index_piece(name)))).read_all()


def link_shard(tar: Path, target: Path) -> None:
    """Links a shard into the artifact; it also stays in the scratch folder, in case this run does not finish."""
    try:
        os.link(tar, target)
    except OSError:  # A file system without links.
        os.replace(tar, target)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


class _Spools:
    """Reads from the spools, with a bounded number of open files."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._open: dict[int, int] = {}

    def read(self, chunk: int, start: int, length: int) -> bytes:
        """The bytes [start, start + length) of a chunk's spool."""
        if chunk not in self._open:
            if len(self._open) == _MAX_OPEN_SPOOLS:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[chunk] = os.open(self._scratch.spool(chunk), os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._open[chunk], length, start)

    def __enter__(self) -> _Spools:
        return self

    def __exit__(self, *ignored: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
