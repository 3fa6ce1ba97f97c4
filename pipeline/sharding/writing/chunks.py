"""A chunk: some of a source's items, read and checked; its images lie in a spool, what is known of them in a table.

The table is uncompressed Arrow, so that the plan copies its numeric columns without making an object an image, and so
that a shard's task maps it and takes out the few rows it needs. Names of sources and nodes of the taxonomy are
numbered inside the chunk; `Columns` numbers them over all chunks.
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
# What the plan needs of an image: numbers only.
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
# What a shard's task needs besides.
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
# What the artifact remembers of an item, so that a later run can tell whether it changed (deltas/items_table.py).
_REMEMBERED = {"number": pa.int32(), "name": _TEXT, "item": pa.uint64(), "facts": pa.uint64(), "stamp": pa.uint64()}
SCHEMA = pa.schema({**_STORED, **_REMEMBERED, **_PLANNED})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An item that is not an image, and why."""

    name: str
    label: str | None
    source: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """What is known of a chunk beside its rows.

    Attributes:
        items: how many items were read; the rows are those that are images.
        digest: of the items' names: another list of items is another chunk.
        spool_bytes: size of its spool.
        sources, nodes: what the numbers in the columns `source` and `node` mean.
        counts: how often images and captions were changed, by reason.
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
    """Writes the table of a chunk; the chunk is done then."""
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
    """Columns of rows out of several chunks, in the order they are given, in one piece.

    Args:
        chunks, rows: the chunk of each and its row there; at least one.
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
    """What is known of a chunk that is done."""
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
    """The facts of a chunk that an earlier run finished; None if it must be read."""
    try:
        facts = read_facts(scratch, chunk)
        size = scratch.spool(chunk).stat().st_size
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError):
        return None
    return facts if facts.digest == digest and facts.spool_bytes == size else None


@dataclass(frozen=True, eq=False)
class Columns:
    """What a plan needs to know of every image, as columns in the order of the source: files, 76 bytes a row.

    Attributes:
        starts: [chunks + 1] the first row of each chunk.
        hash_high, hash_low: [rows] the content hash.
        look: [rows] the difference hash; zeros if it was not asked for.
        label: [rows] number of the label, -1 for none.
        source: [rows] number into `source_names`.
        node: [rows] number into `node_paths`.
        given: [rows] the split that the data set prescribes, -1 for none.
        group_code: [rows] equal for one content group.
        named: [rows] 1 if the group has a name, 0 if it is the images with these bytes.
        place: [rows] a number in [0, 1), which decides about the split of the row's group.
        meaning: [rows] equal for equal captions.
        order: [rows] hash of the key: the order inside a split.
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
        """The names of the columns that have a value a row."""
        return tuple(_PLANNED)

    @property
    def nbytes(self) -> int:
        """Bytes that the columns take."""
        return sum(getattr(self, name).nbytes for name in _PLANNED)

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The chunk of each row, and its row in that chunk's table."""
        chunks = np.searchsorted(self.starts, rows, side="right") - 1
        return chunks, rows - self.starts[chunks]

    @classmethod
    def load(cls, scratch: Scratch, chunks: Sequence[ChunkFacts]) -> Columns:
        """The columns of all chunks, in their order, in files of the scratch folder."""
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
