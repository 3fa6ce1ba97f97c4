"""A chunk: some of a source's items, read and checked. Its images are in one file, the spool, its metadata in a table.

The table is uncompressed Arrow: the plan copies its numeric columns without creating an object per image, and the task
that writes a shard memory-maps it and selects the few rows that it needs. Families and taxonomy nodes are numbered
within the chunk; `PlanColumns` renumbers them over all chunks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.atomic_files import atomic_write
from pipeline.sharding.format.arrow_file import write_arrow
from pipeline.sharding.format.mapped_columns import mapped_numbers
from pipeline.sharding.writing.item_columns import ITEM_COLUMNS, PLAN_COLUMNS, SHARD_COLUMNS
from pipeline.sharding.writing.scratch import Scratch

SCHEMA = pa.schema({**SHARD_COLUMNS, "number": pa.int32(), **ITEM_COLUMNS, **PLAN_COLUMNS})
"""The columns of a chunk's table; `number` is the item's number in the chunk."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An item that cannot be stored, and the reason."""

    name: str
    label: str | None
    family: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """The result of a chunk, without its rows.

    Attributes:
        items: number of items read; readable ones become rows.
        digest: hash of the item names in their order.
        spool_bytes: size of its spool.
        families, nodes: the values that the numbers in the columns `family` and `node` index.
        counts: "images" or "captions" -> reason -> number that were changed or dropped for it.
    """

    items: int
    digest: str
    spool_bytes: int
    families: tuple[str, ...]
    nodes: tuple[tuple[str, ...], ...]
    unreadable: tuple[Unreadable, ...]
    counts: dict[str, dict[str, int]]

    @property
    def row_count(self) -> int:
        """Number of rows of its table: the readable items."""
        return self.items - len(self.unreadable)


def write_table(scratch: Scratch, chunk: int, columns: dict[str, list[Any]], result: ChunkResult) -> None:
    """Writes the table of a chunk; the chunk is complete once the table exists."""
    content = {
        "items": result.items,
        "digest": result.digest,
        "spool_bytes": result.spool_bytes,
        "families": result.families,
        "nodes": result.nodes,
        "unreadable": [[item.name, item.label, item.family, item.bytes, item.reason] for item in result.unreadable],
        "counts": result.counts,
    }
    schema = SCHEMA.with_metadata({"result": json.dumps(content)})
    table = pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=schema)
    with atomic_write(scratch.table(chunk)) as temporary, pa.OSFile(str(temporary), "wb") as file:
        write_arrow(file, table)


def read_table(scratch: Scratch, chunk: int) -> pa.Table:
    """The rows of a chunk, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(scratch.table(chunk)))).read_all()


def read_rows(scratch: Scratch, chunks: NDArray[np.int64], rows: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
    """Columns of rows from several chunks, in the given order, as one contiguous table.

    Args:
        chunks, rows: [n] the chunk of each row, and its row number in that chunk; n > 0.
    """
    order = np.argsort(chunks, kind="stable")
    present, starts = np.unique(chunks[order], return_index=True)
    tables = []
    for chunk, positions in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
        tables.append(read_table(scratch, chunk).select(names).take(pa.array(rows[positions])))
    inverse = np.empty(len(order), dtype=np.int64)
    inverse[order] = np.arange(len(order))
    return pa.concat_tables(tables).combine_chunks().take(pa.array(inverse)).combine_chunks()


def read_result(scratch: Scratch, chunk: int) -> ChunkResult:
    """The result of a completed chunk."""
    with pa.memory_map(str(scratch.table(chunk))) as file:
        content = json.loads(pa.ipc.open_file(file).schema.metadata[b"result"])
    return ChunkResult(
        items=content["items"],
        digest=content["digest"],
        spool_bytes=content["spool_bytes"],
        families=tuple(content["families"]),
        nodes=tuple(tuple(node) for node in content["nodes"]),
        unreadable=tuple(Unreadable(*item) for item in content["unreadable"]),
        counts=content["counts"],
    )


def earlier_result(scratch: Scratch, chunk: int, digest: str) -> ChunkResult | None:
    """The result of a chunk that an earlier run finished; None if the chunk must be read."""
    try:
        result = read_result(scratch, chunk)
        size = scratch.spool(chunk).stat().st_size
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError):
        return None
    return result if result.digest == digest and result.spool_bytes == size else None


@dataclass(frozen=True, eq=False)
class PlanColumns:
    """The columns that the plan needs of every image, in source order; memory-mapped files, 76 bytes per row.

    Attributes:
        starts: [chunks + 1] the first row of each chunk.
        hash_high, hash_low: [rows] the two halves of the content hash.
        difference_hash: [rows] the difference hash; zeros if not computed.
        label: [rows] number of the label, -1 for none.
        family: [rows] index into `family_names`.
        node: [rows] index into `node_paths`.
        given_split: [rows] the split that the data set prescribes, -1 for none.
        group_hash: [rows] hash of the content group.
        has_named_group: [rows] 1 if the group has a name, 0 if it consists of the images with equal bytes.
        split_draw: [rows] a number in [0, 1) that determines the split of the row's group.
        captions_hash: [rows] hash of the captions.
        key_hash: [rows] hash of the key: the sort key within a split.
        sample_bytes: [rows] bytes of the sample in a tar.
    """

    starts: NDArray[np.int64]
    hash_high: NDArray[np.uint64]
    hash_low: NDArray[np.uint64]
    difference_hash: NDArray[np.uint64]
    label: NDArray[np.int32]
    family: NDArray[np.int16]
    node: NDArray[np.int32]
    given_split: NDArray[np.int8]
    group_hash: NDArray[np.uint64]
    has_named_group: NDArray[np.int8]
    split_draw: NDArray[np.float64]
    captions_hash: NDArray[np.uint64]
    key_hash: NDArray[np.uint64]
    sample_bytes: NDArray[np.int64]
    family_names: tuple[str, ...]
    node_paths: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def nbytes(self) -> int:
        """Size of the columns in bytes."""
        return sum(getattr(self, name).nbytes for name in PLAN_COLUMNS)

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """([rows] chunk of each row, [rows] row number in that chunk's table)."""
        chunks = np.searchsorted(self.starts, rows, side="right") - 1
        return chunks, rows - self.starts[chunks]

    @classmethod
    def load(cls, scratch: Scratch, chunks: Sequence[ChunkResult]) -> PlanColumns:
        """Writes the columns of all chunks, in order, to files of the scratch folder and maps them."""
        starts = np.concatenate([[0], np.cumsum([result.row_count for result in chunks])]).astype(np.int64)
        columns: dict[str, Any] = {
            name: mapped_numbers(scratch.columns("planned") / name, kind.to_pandas_dtype(), int(starts[-1]))
            for name, kind in PLAN_COLUMNS.items()
        }
        families: dict[str, int] = {}
        nodes: dict[tuple[str, ...], int] = {}
        for chunk, result in enumerate(chunks):
            rows = slice(starts[chunk], starts[chunk + 1])
            table = read_table(scratch, chunk)
            for name in PLAN_COLUMNS:
                columns[name][rows] = table.column(name).chunk(0).to_numpy(zero_copy_only=True)
            family_numbers = [families.setdefault(name, len(families)) for name in result.families]
            node_numbers = [nodes.setdefault(path, len(nodes)) for path in result.nodes]
            if result.row_count:
                columns["family"][rows] = np.array(family_numbers)[columns["family"][rows]]
                columns["node"][rows] = np.array(node_numbers)[columns["node"][rows]]
        return cls(starts=starts, family_names=tuple(families), node_paths=tuple(nodes), **columns)


def key_of_row(scratch: Scratch, columns: PlanColumns, row: int) -> str:
    """The key of one image."""
    return _text_of_row(scratch, columns, row, "key")


def name_of_row(scratch: Scratch, columns: PlanColumns, row: int) -> str:
    """The name of one image in its source."""
    return _text_of_row(scratch, columns, row, "name")


def _text_of_row(scratch: Scratch, columns: PlanColumns, row: int, column: str) -> str:
    chunk, row_in_chunk = columns.locate(np.array([row]))
    return str(read_table(scratch, int(chunk[0])).column(column)[int(row_in_chunk[0])].as_py())
