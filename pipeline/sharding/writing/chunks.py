"""A chunk: some of a source's items, read and checked; its images are in a spool, their metadata in a table.

The table is uncompressed Arrow: the plan copies its numeric columns without creating an object per image, and a
shard's task memory-maps it and selects the few rows it needs. Source names and taxonomy nodes are numbered within the
chunk; `Columns` numbers them over all chunks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.sharding.format.arrow_file import write_arrow
from pipeline.sharding.format.mapped_columns import mapped_numbers
from pipeline.sharding.writing.scratch import Scratch
from pipeline.whole_files import written_whole

_TEXT = pa.large_string()
# Columns that the plan needs: numbers only.
_PLANNED = {
    "hash_high": pa.uint64(),
    "hash_low": pa.uint64(),
    "look": pa.uint64(),
    "label": pa.int32(),
    "source": pa.int16(),
    "node": pa.int32(),
    "given": pa.int8(),
    "group_code": pa.uint64(),
    "named": pa.int8(),
    "place": pa.float64(),
    "meaning": pa.uint64(),
    "order": pa.uint64(),
    "stored": pa.int64(),
}
# Columns that a shard's task needs in addition.
_STORED = {
    "key": _TEXT,
    "extension": pa.int8(),
    "start": pa.int64(),
    "tar": pa.int32(),
    "length": pa.int32(),
    "width": pa.int32(),
    "height": pa.int32(),
    "group": _TEXT,
    "captions": pa.large_list(_TEXT),
    "notes": _TEXT,
}
# Columns that the artifact stores so that a later run can detect a changed item (deltas/items_table.py).
_REMEMBERED = {"number": pa.int32(), "name": _TEXT, "item": pa.uint64(), "facts": pa.uint64(), "stamp": pa.uint64()}
SCHEMA = pa.schema({**_STORED, **_REMEMBERED, **_PLANNED})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An item that cannot be stored, and the reason."""

    name: str
    label: str | None
    source: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """The result of a chunk, without its rows.

    Attributes:
        items: number of items read; readable ones become rows.
        digest: hash of the item names in their order.
        spool_bytes: size of its spool.
        sources, nodes: the values that the numbers in the columns `source` and `node` index.
        counts: "images" or "captions" -> reason -> number of changed or dropped ones.
    """

    items: int
    digest: str
    spool_bytes: int
    sources: tuple[str, ...]
    nodes: tuple[tuple[str, ...], ...]
    unreadable: tuple[Unreadable, ...]
    counts: dict[str, dict[str, int]]

    @property
    def rows(self) -> int:
        return self.items - len(self.unreadable)


def write_table(scratch: Scratch, chunk: int, columns: dict[str, list[Any]], facts: ChunkFacts) -> None:
    """Writes the table of a chunk, which completes the chunk."""
    content = {
        "items": facts.items,
        "digest": facts.digest,
        "spool_bytes": facts.spool_bytes,
        "sources": facts.sources,
        "nodes": facts.nodes,
        "unreadable": [[one.name, one.label, one.source, one.bytes, one.reason] for one in facts.unreadable],
        "counts": facts.counts,
    }
    schema = SCHEMA.with_metadata({"facts": json.dumps(content)})
    table = pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=schema)
    with written_whole(scratch.table(chunk)) as aside, pa.OSFile(str(aside), "wb") as file:
        write_arrow(file, table)


def read_table(scratch: Scratch, chunk: int) -> pa.Table:
    """The rows of a chunk, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(scratch.table(chunk)))).read_all()


def read_rows(scratch: Scratch, chunks: NDArray[np.int64], rows: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
    """Columns of rows from several chunks, in the given order, as one contiguous table.

    Args:
        chunks, rows: the chunk of each row, and its row number in that chunk; at least one.
    """
    order = np.argsort(chunks, kind="stable")
    present, starts = np.unique(chunks[order], return_index=True)
    pieces = []
    for chunk, places in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
        pieces.append(read_table(scratch, chunk).select(names).take(pa.array(rows[places])))
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_tables(pieces).combine_chunks().take(pa.array(back)).combine_chunks()


def read_facts(scratch: Scratch, chunk: int) -> ChunkFacts:
    """The result of a completed chunk."""
    with pa.memory_map(str(scratch.table(chunk))) as file:
        content = json.loads(pa.ipc.open_file(file).schema.metadata[b"facts"])
    return ChunkFacts(
        items=content["items"],
        digest=content["digest"],
        spool_bytes=content["spool_bytes"],
        sources=tuple(content["sources"]),
        nodes=tuple(tuple(node) for node in content["nodes"]),
        unreadable=tuple(Unreadable(*one) for one in content["unreadable"]),
        counts=content["counts"],
    )


def done_before(scratch: Scratch, chunk: int, digest: str) -> ChunkFacts | None:
    """The result of a chunk that an earlier run finished; None if the chunk must be read."""
    try:
        facts = read_facts(scratch, chunk)
        size = scratch.spool(chunk).stat().st_size
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError):
        return None
    return facts if facts.digest == digest and facts.spool_bytes == size else None


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns that the plan needs of every image, in source order; memory-mapped files, 76 bytes per row.

    Attributes:
        starts: [chunks + 1] the first row of each chunk.
        hash_high, hash_low: [rows] the two halves of the content hash.
        look: [rows] the difference hash; zeros if not computed.
        label: [rows] number of the label, -1 for none.
        source: [rows] index into `source_names`.
        node: [rows] index into `node_paths`.
        given: [rows] the split that the data set prescribes, -1 for none.
        group_code: [rows] hash of the content group.
        named: [rows] 1 if the group has a name, 0 if it consists of the images with equal bytes.
        place: [rows] a number in [0, 1) that determines the split of the row's group.
        meaning: [rows] hash of the captions.
        order: [rows] hash of the key: the sort key within a split.
        stored: [rows] bytes of the sample in a tar.
    """

    starts: NDArray[np.int64]
    hash_high: NDArray[np.uint64]
    hash_low: NDArray[np.uint64]
    look: NDArray[np.uint64]
    label: NDArray[np.int32]
    source: NDArray[np.int16]
    node: NDArray[np.int32]
    given: NDArray[np.int8]
    group_code: NDArray[np.uint64]
    named: NDArray[np.int8]
    place: NDArray[np.float64]
    meaning: NDArray[np.uint64]
    order: NDArray[np.uint64]
    stored: NDArray[np.int64]
    source_names: tuple[str, ...]
    node_paths: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.label)

    @staticmethod
    def planned() -> tuple[str, ...]:
        """The names of the columns that have one value per row."""
        return tuple(_PLANNED)

    @property
    def nbytes(self) -> int:
        """Size of the columns in bytes."""
        return sum(getattr(self, name).nbytes for name in _PLANNED)

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """([rows] chunk of each row, [rows] row number in that chunk's table)."""
        chunks = np.searchsorted(self.starts, rows, side="right") - 1
        return chunks, rows - self.starts[chunks]

    @classmethod
    def load(cls, scratch: Scratch, chunks: Sequence[ChunkFacts]) -> Columns:
        """Writes the columns of all chunks, in order, to files of the scratch folder and maps them."""
        starts = np.concatenate([[0], np.cumsum([facts.rows for facts in chunks])]).astype(np.int64)
        columns: dict[str, Any] = {
            name: mapped_numbers(scratch.columns("planned") / name, kind.to_pandas_dtype(), int(starts[-1]))
            for name, kind in _PLANNED.items()
        }
        sources: dict[str, int] = {}
        nodes: dict[tuple[str, ...], int] = {}
        for chunk, facts in enumerate(chunks):
            rows = slice(starts[chunk], starts[chunk + 1])
            table = read_table(scratch, chunk)
            for name in _PLANNED:
                columns[name][rows] = table.column(name).chunk(0).to_numpy(zero_copy_only=True)
            source_of = [sources.setdefault(name, len(sources)) for name in facts.sources]
            node_of = [nodes.setdefault(path, len(nodes)) for path in facts.nodes]
            if facts.rows:
                columns["source"][rows] = np.array(source_of)[columns["source"][rows]]
                columns["node"][rows] = np.array(node_of)[columns["node"][rows]]
        return cls(starts=starts, source_names=tuple(sources), node_paths=tuple(nodes), **columns)


def key_of_row(scratch: Scratch, columns: Columns, row: int) -> str:
    """The key of one image."""
    chunk, place = columns.locate(np.array([row]))
    return str(read_table(scratch, int(chunk[0])).column("key")[int(place[0])].as_py())
