"""Tables as Arrow files of one record batch: what can be mapped, column by column, without a copy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa


def write_arrow(sink: Any, table: pa.Table) -> None:
    """Writes a table in one chunk; the same rows give the same bytes."""
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, len(table)))
        if len(table) == 0:
            writer.write_batch(pa.RecordBatch.from_pylist([], schema=table.schema))


def on_disk(parts: Sequence[pa.Table], folder: Path) -> pa.Table:
    """The rows of tables with one schema, one after another, in one chunk, as `combine_chunks` puts them into memory.

    Each column becomes a file of `folder`, which is made, and is mapped from there; so one of them at a time is in
    memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema = parts[0].schema.remove_metadata()
    columns = []
    for field in schema:
        column = pa.chunked_array([chunk for part in parts for chunk in part.column(field.name).chunks], field.type)
        path = folder / f"{field.name}.arrow"
        # Not written over: what an earlier call gave may be mapped from there still.
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            write_arrow(file, pa.table([column], schema=pa.schema([field])).combine_chunks())
        del column
        columns.append(pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(0))
    return pa.Table.from_arrays(columns, schema=schema)


def arrow_sha256(table: pa.Table) -> str:
    """SHA-256, in hex, of the file that `write_arrow` makes of a table."""
    sink = _HashSink()
    write_arrow(sink, table)
    return sink.hasher.hexdigest()


class _HashSink:
    """A file that keeps nothing but the SHA-256 of what is written to it."""

    def __init__(self) -> None:
        self.hasher = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        self.hasher.update(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
