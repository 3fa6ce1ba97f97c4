"""Reads images embedded in Parquet one cell at a time, with a page of the column in memory instead of a row group.

A cell of a Parquet file can be read only by decoding the column from the start of its row group. Each thread has its
own cursor, which moves forwards: N threads that read N ranges of a file decode each page at most N times. To read an
earlier row, a cursor starts its row group again.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.tables import open_parquet

_BATCH_ROWS = 16
_MAX_CURSORS_PER_THREAD = 2


def read_cell(file: FoundFile, column: str, row: int) -> bytes:
    """The bytes in a row of a column that is binary, or a struct with a binary field `bytes`.

    Args:
        row: row in the file, from 0.
    Raises:
        OSError: the cell has no bytes, or the file is damaged.
    """
    value = _cursor(file, column).cell(row)
    if isinstance(value, dict):
        path, value = value.get("path"), value.get("bytes")
        if value is None and path:
            raise OSError(f"holds no bytes, only the path {path!r}; read the table with kind manifest")
    if not isinstance(value, bytes):
        raise OSError("is null" if value is None else f"holds {type(value).__name__}, not bytes")
    return value


class _Cursor:
    """A cursor that reads a column forwards, a batch of rows at a time."""

    def __init__(self, url: str, column: str) -> None:
        self._url = url
        self._column = column
        self._file = open_parquet(url)
        metadata = self._file.metadata
        sizes = (metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
        self._starts = [0, *accumulate(sizes)]
        self._group = -1
        self._batch: Any = ()
        self._start = 0
        self._stream: Iterator[Any] = iter(())

    def cell(self, row: int) -> Any:
        group = bisect_right(self._starts, row) - 1
        if group != self._group or row < self._start:
            self._group, self._start, self._batch = group, self._starts[group], ()
            self._stream = self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[self._column])
        while row >= self._start + len(self._batch):
            try:
                batch = next(self._stream).column(0)
            except (pa.ArrowException, OSError, StopIteration) as error:
                self._group = -1
                raise OSError(f"{self._url} is damaged near row {row + 1} ({error})") from None
            self._start, self._batch = self._start + len(self._batch), batch
        return self._batch[row - self._start].as_py()


_of_thread = threading.local()


def _cursor(file: FoundFile, column: str) -> _Cursor:
    cursors: OrderedDict[tuple[FoundFile, str], _Cursor] = _of_thread.__dict__.setdefault("cursors", OrderedDict())
    if (file, column) not in cursors:
        try:
            cursors[file, column] = _Cursor(file.url, column)
        except InputError as error:
            raise OSError(str(error)) from None
        while len(cursors) > _MAX_CURSORS_PER_THREAD:
            cursors.popitem(last=False)
    cursors.move_to_end((file, column))
    return cursors[file, column]
