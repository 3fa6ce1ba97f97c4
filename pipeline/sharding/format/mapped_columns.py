"""Columns that lie in files and are mapped from there: what is larger than memory, and of no use after the run.

A buffer of a column is a file, to which rows are added; in memory is what is being added. Pages of a map that nobody
looks at go back to the kernel, so that a process's memory does not grow with the data set.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


def on_disk(parts: Iterable[pa.Table], schema: pa.Schema, folder: Path) -> pa.Table:
    """The rows of tables, one after another, in one chunk, as `combine_chunks` puts them into memory.

    Args:
        parts: tables with the columns of `schema`, without nulls; looked at one after another.
        schema: of numbers, large strings, large lists of these, and dictionaries that are the same in all parts.
        folder: for the files; it is made, and what an earlier call left there may still be in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        columns = [_column(field.type, folder / field.name, opened) for field in schema]
        for part in parts:
            for field, column in zip(schema, columns, strict=True):
                for chunk in part.column(field.name).chunks:
                    if chunk.null_count:
                        raise ValueError(f"{field.name}: holds nulls")
                    if len(chunk):
                        column.add(chunk)
    return pa.Table.from_arrays([column.mapped() for column in columns], schema=schema.remove_metadata())


def mapped_numbers(path: Path, dtype: type[Number] | np.dtype[Number], count: int) -> NDArray[Number]:
    """[count] zeros, in a new file, to be written to.

    Raises:
        OSError: there is no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not written over: what an earlier call gave may be mapped from there still.
    path.unlink(missing_ok=True)
    if count == 0:
        return np.empty(0, dtype=dtype)
    with path.open("wb") as file:
        _reserve(file, count * np.dtype(dtype).itemsize)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r+", shape=(count,)))


def _reserve(file: IO[bytes], size: int) -> None:
    """Takes the room on the disk now: where a map grows into a full disk, the process is killed without a word."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        file.truncate(size)
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from None


class NumbersFile:
    """Numbers that are added to a file, some at a time.

    Args:
        opened: closes the file.
    """

    def __init__(self, path: Path, dtype: Any, opened: ExitStack) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._path = path
        self._dtype = np.dtype(dtype)
        self._file: IO[bytes] = opened.enter_context(path.open("wb", buffering=1 << 16))
        self._count = 0

    def add(self, values: Any) -> None:
        """Adds an array of numbers."""
        whole = np.ascontiguousarray(values, dtype=self._dtype)
        self._file.write(whole.data)
        self._count += whole.size

    def __len__(self) -> int:
        return self._count

    def buffer(self) -> pa.Buffer:
        """What was added, mapped; nothing is added after that."""
        self._file.close()
        if not self._count:
            return pa.py_buffer(b"")
        with pa.memory_map(str(self._path)) as file:
            return file.read_buffer()

    def mapped(self) -> NDArray[Any]:
        """What was added, mapped; nothing is added after that."""
        return np.frombuffer(self.buffer(), dtype=self._dtype)


class _Column(Protocol):
    """A column that is being written."""

    def add(self, chunk: Any) -> None:
        """Adds an array, which has rows and no nulls."""

    def mapped(self) -> pa.Array:
        """What was added; nothing is added after that."""


class _Numbers:
    """A column of numbers."""

    def __init__(self, kind: pa.DataType, path: Path, opened: ExitStack) -> None:
        self._kind = kind
        self._file = NumbersFile(path, kind.to_pandas_dtype(), opened)

    def add(self, chunk: Any) -> None:
        self._file.add(chunk.to_numpy(zero_copy_only=True))

    def mapped(self) -> pa.Array:
        return pa.Array.from_buffers(self._kind, len(self._file), [None, self._file.buffer()])


class _Ends:
    """Where the lists or texts of a column end."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self._file = NumbersFile(path, np.int64, opened)
        self._file.add([0])
        self._end = 0

    def add(self, chunk: Any) -> tuple[int, int]:
        """Adds a chunk's, which has rows; where its values begin and end in what it points to."""
        ends = np.frombuffer(chunk.buffers()[1], dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        first, last = int(ends[0]), int(ends[-1])
        self._file.add(ends[1:] + (self._end - first))
        self._end += last - first
        return first, last

    def __len__(self) -> int:
        return len(self._file) - 1

    def buffer(self) -> pa.Buffer:
        return self._file.buffer()


class _Texts:
    """A column of large strings."""

    def __init__(self, kind: pa.DataType, path: Path, opened: ExitStack) -> None:
        self._kind = kind
        self._ends = _Ends(path.with_name(f"{path.name}.ends"), opened)
        self._bytes = NumbersFile(path, np.uint8, opened)

    def add(self, chunk: Any) -> None:
        first, last = self._ends.add(chunk)
        if last > first:
            self._bytes.add(np.frombuffer(chunk.buffers()[2], dtype=np.uint8)[first:last])

    def mapped(self) -> pa.Array:
        return pa.Array.from_buffers(self._kind, len(self._ends), [None, self._ends.buffer(), self._bytes.buffer()])


class _Lists:
    """A column of large lists."""

    def __init__(self, kind: pa.DataType, path: Path, opened: ExitStack) -> None:
        self._kind = kind
        self._ends = _Ends(path.with_name(f"{path.name}.ends"), opened)
        self._values = _column(kind.value_type, path.with_name(f"{path.name}.values"), opened)

    def add(self, chunk: Any) -> None:
        self._ends.add(chunk)
        values = chunk.flatten()
        if len(values):
            self._values.add(values)

    def mapped(self) -> pa.Array:
        values = self._values.mapped()
        return pa.Array.from_buffers(self._kind, len(self._ends), [None, self._ends.buffer()], children=[values])


class _Codes:
    """A column of few different texts."""

    def __init__(self, kind: pa.DataType, path: Path, opened: ExitStack) -> None:
        self._codes = _Numbers(kind.index_type, path, opened)
        self._kind = kind
        self._names: pa.Array | None = None

    def add(self, chunk: Any) -> None:
        if self._names is None:
            self._names = chunk.dictionary
        elif not self._names.equals(chunk.dictionary):
            raise ValueError("parts with different dictionaries")
        self._codes.add(chunk.indices)

    def mapped(self) -> pa.Array:
        names = pa.array([], self._kind.value_type) if self._names is None else self._names
        return pa.DictionaryArray.from_arrays(self._codes.mapped(), names)


def _column(kind: pa.DataType, path: Path, opened: ExitStack) -> _Column:
    if pa.types.is_large_list(kind):
        return _Lists(kind, path, opened)
    if pa.types.is_large_string(kind):
        return _Texts(kind, path, opened)
    if pa.types.is_dictionary(kind):
        return _Codes(kind, path, opened)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _Numbers(kind, path, opened)
    raise TypeError(f"no file for a column of {kind}")
