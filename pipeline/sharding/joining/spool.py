"""On-disk buffers of the columns of a join; all are memory-mapped.

A number is written at its row. Where a text is in the output depends on all texts before it, so texts are written in
the order in which they are read, and sorted by row at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.sharding.format.column_kind import ColumnKind

# Rows per batch when texts are sorted.
_CHUNK_ROWS = 4096


class ColumnSpool(Protocol):
    """The buffer of one column."""

    valid: NDArray[np.bool_]

    def put(self, rows: NDArray[np.int64], values: pa.Array) -> None:
        """Stores `values`, without nulls, as the values of `rows`."""

    def finish(self) -> pa.Array:
        """The column in row order, memory-mapped."""


def open_spool(kind: ColumnKind, rows: int, folder: Path) -> ColumnSpool:
    """Creates an empty spool in a new folder."""
    folder.mkdir()
    return TextSpool(rows, folder) if kind.is_text else NumberSpool(kind, rows, folder)


class NumberSpool:
    """Numbers, or lists of D numbers: [rows] or [rows, D]; `kind.missing` for rows without a value."""

    def __init__(self, kind: ColumnKind, rows: int, folder: Path) -> None:
        self.valid: NDArray[np.bool_] = _zeros(folder / "valid", np.bool_, rows)
        self._kind = kind
        self._values = _zeros(folder / "values", kind.dtype, rows, kind.length or 1)

    def put(self, rows: NDArray[np.int64], values: pa.Array) -> None:
        self._values[rows] = self._kind.numbers(values).reshape(len(rows), -1)
        self.valid[rows] = True

    def finish(self) -> pa.Array:
        for first in range(0, len(self.valid), _CHUNK_ROWS):
            absent = first + np.flatnonzero(~self.valid[first : first + _CHUNK_ROWS])
            self._values[absent] = self._kind.missing
        flat = pa.Array.from_buffers(
            pa.from_numpy_dtype(self._kind.dtype), self._values.size, [None, pa.py_buffer(self._values)]
        )
        return flat if self._kind.length is None else pa.FixedSizeListArray.from_arrays(flat, self._kind.length)


class TextSpool:
    """Lists of texts, one list per row; empty for rows without a value."""

    def __init__(self, rows: int, folder: Path) -> None:
        self.valid: NDArray[np.bool_] = _zeros(folder / "valid", np.bool_, rows)
        # Row -> its entry in the spool. Entry 0 is an empty list, which stands for a missing value.
        self._entries = _zeros(folder / "entries", np.int64, rows)
        self._folder = folder
        self._spooled = TextFile(folder / "spooled").append(_texts([[]]))

    def put(self, rows: NDArray[np.int64], values: pa.Array) -> None:
        self._entries[rows] = np.arange(len(self._spooled), len(self._spooled) + len(rows))
        self.valid[rows] = True
        self._spooled.append(values)

    def finish(self) -> pa.Array:
        spooled = self._spooled.array()
        ordered = TextFile(self._folder / "ordered")
        for first in range(0, len(self._entries), _CHUNK_ROWS):
            ordered.append(spooled.take(pa.array(self._entries[first : first + _CHUNK_ROWS])))
        return ordered.array()


class TextFile:
    """An append-only array of lists of texts; its three Arrow buffers are in three files.

    Args:
        path: of the files, without suffix.
    """

    def __init__(self, path: Path) -> None:
        self._paths = [path.with_suffix(suffix) for suffix in (".lists", ".texts", ".bytes")]
        self._files = [file.open("wb") for file in self._paths]
        self._lists = self._texts = self._bytes = 0
        for file in self._files[:2]:
            file.write(np.zeros(1, np.int64).tobytes())

    def __len__(self) -> int:
        return self._lists

    def append(self, lists: pa.Array) -> Self:
        """Adds lists of texts without nulls."""
        texts = lists.flatten()
        list_ends = np.cumsum(_lengths(lists), dtype=np.int64) + self._texts
        text_ends = np.cumsum(_lengths(texts), dtype=np.int64) + self._bytes
        self._files[0].write(list_ends.tobytes())
        self._files[1].write(text_ends.tobytes())
        offsets = _offsets(texts)
        if len(texts) and offsets[-1] > offsets[0]:
            self._files[2].write(memoryview(texts.buffers()[2])[offsets[0] : offsets[-1]])
        self._lists += len(lists)
        self._texts += len(texts)
        self._bytes += int(offsets[-1] - offsets[0]) if len(texts) else 0
        return self

    def array(self) -> pa.Array:
        """Closes the files; returns the array, memory-mapped."""
        for file in self._files:
            file.close()
        lists, texts, data = (
            pa.py_buffer(np.memmap(path, np.uint8, mode="r")) if path.stat().st_size else pa.py_buffer(b"")
            for path in self._paths
        )
        strings = pa.Array.from_buffers(pa.large_string(), self._texts, [None, texts, data])
        return pa.Array.from_buffers(_TEXTS, self._lists, [None, lists], children=[strings])


_TEXTS = pa.large_list(pa.large_string())


def _texts(values: list[list[str]]) -> pa.Array:
    return pa.array(values, _TEXTS)


def _offsets(array: pa.Array) -> NDArray[np.int64]:
    """The [n + 1] offsets of a large_list or large_string array."""
    if len(array) == 0:
        return np.zeros(1, np.int64)
    return np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]


def _lengths(array: pa.Array) -> NDArray[np.int64]:
    return np.diff(_offsets(array))


def _zeros(path: Path, dtype: object, *shape: int) -> np.memmap[Any, Any]:
    """A new file of zeros as a memory-mapped array; unwritten pages use no disk (sparse file)."""
    return np.memmap(path, dtype, mode="w+", shape=shape)  # type: ignore[call-overload]
