"""What a join has read so far, on the disk: numbers at the row they belong to, texts in the order they came in.

A text's place in the output is known only when all texts before it are, so texts are spooled first and put in order
at the end. All of it is memory-mapped: the system keeps in memory what it has room for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.sharding.format.values import ColumnKind

# Rows whose texts are put in order together.
_CHUNK_ROWS = 4096


class ColumnSpool(Protocol):
    """The values of one column, as they come in."""

    valid: NDArray[np.bool_]

    def put(self, rows: NDArray[np.int64], values: pa.Array) -> None:
        """Keeps values that have no nulls, at these rows."""

    def finish(self) -> pa.Array:
        """The column in the order of the rows, mapped."""


def open_spool(kind: ColumnKind, rows: int, folder: Path) -> ColumnSpool:
    """An empty spool in a folder of its own."""
    folder.mkdir()
    return TextSpool(rows, folder) if kind.is_text else NumberSpool(kind, rows, folder)


class NumberSpool:
    """Numbers, or lists of D numbers: [rows] or [rows, D]; `kind.missing` where there is no value."""

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
    """Texts, any number a row; none where there is no value."""

    def __init__(self, rows: int, folder: Path) -> None:
        self.valid: NDArray[np.bool_] = _zeros(folder / "valid", np.bool_, rows)
        # Entry 0 of the spool is what a row without a value gets.
        self._place = _zeros(folder / "place", np.int64, rows)
        self._folder = folder
        self._spooled = TextFile(folder / "spooled").append(_texts([[]]))

    def put(self, rows: NDArray[np.int64], values: pa.Array) -> None:
        self._place[rows] = np.arange(len(self._spooled), len(self._spooled) + len(rows))
        self.valid[rows] = True
        self._spooled.append(values)

    def finish(self) -> pa.Array:
        spooled = self._spooled.array()
        ordered = TextFile(self._folder / "ordered")
        for first in range(0, len(self._place), _CHUNK_ROWS):
            ordered.append(spooled.take(pa.array(self._place[first : first + _CHUNK_ROWS])))
        return ordered.array()


class TextFile:
    """A growing array of lists of texts, as the three buffers of its Arrow form in three files.

    Args:
        place: the files' name, without suffix.
    """

    def __init__(self, place: Path) -> None:
        self._paths = [place.with_suffix(suffix) for suffix in (".lists", ".texts", ".bytes")]
        self._files = [path.open("wb") for path in self._paths]
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
        """Everything so far, mapped; nothing can be added any more."""
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
    """A new file of zeros as an array; what is not written costs no disk."""
    return np.memmap(path, dtype, mode="w+", shape=shape)  # type: ignore[call-overload]
