"""Tables as Arrow files of one record batch, whose columns can be memory-mapped without a copy."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa


def write_arrow(sink: Any, table: pa.Table) -> None:
    """Writes a table in one chunk; the same rows give the same bytes."""
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, len(table)))
        if len(table) == 0:
            writer.write_batch(pa.RecordBatch.from_pylist([], schema=table.schema))


def arrow_sha256(table: pa.Table) -> str:
    """SHA-256, in hex, of the file that `write_arrow` writes for a table."""
    sink = _HashSink()
    write_arrow(sink, table)
    return sink.hasher.hexdigest()


class _HashSink:
    """A write-only file that computes the SHA-256 of its data and discards the data."""

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
