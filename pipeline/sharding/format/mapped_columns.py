"""Columns in memory-mapped temporary files, for data that is larger than memory and not needed after the run.

Each buffer of a column is a file to which rows are appended; only the rows being appended are in memory. The kernel
reclaims mapped pages that are not accessed, so that a process's memory does not grow with the data set.
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


def concat_on_disk(tables: Iterable[pa.Table], schema: pa.Schema, folder: Path) -> pa.Table:
    """The concatenated rows of tables in one chunk, like `combine_chunks`, but in files instead of memory.

    Args:
        tables: tables with the columns of `schema`, without nulls; read one after another.
        schema: of numbers, large strings, large lists of these, and dictionaries that are equal in all tables.
        folder: folder of the files; created if missing. Arrays of an earlier call may still be mapped from its files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as open_files:
        columns = [_column(field.type, folder / field.name, open_files) for field in schema]
        for table in tables:
            for field, column in zip(schema, columns, strict=True):
                for chunk in table.column(field.name).chunks:
                    if chunk.null_count:
                        raise ValueError(f"{field.name}: holds nulls")
                    if len(chunk):
                        column.add(chunk)
    return pa.Table.from_arrays([column.finish() for column in columns], schema=schema.remove_metadata())


def mapped_numbers(path: Path, dtype: type[Number] | np.dtype[Number], count: int) -> NDArray[Number]:
    """[count] zeros in a new writable mapped file.

    Raises:
        OSError: the disk has too little free space.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not overwritten: the array of an earlier call may still be mapped from the file.
    path.unlink(missing_ok=True)
    if count == 0:
        return np.empty(0, dtype=dtype)
    with path.open("wb") as file:
        _reserve(file, count * np.dtype(dtype).itemsize)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r+", shape=(count,)))


def _reserve(file: IO[bytes], size: int) -> None:
    """Allocates disk space now: writing to a map on a full disk kills the process without an error message."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        file.truncate(size)
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from None


class NumbersFile:
    """A file to which numbers are appended.

    Args:
        dtype: the numbers' type.
        open_files: closes the file at its exit.
    """

    def __init__(self, path: Path, dtype: Any, open_files: ExitStack) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._path = path
        self._dtype = np.dtype(dtype)
        self._file: IO[bytes] = open_files.enter_context(path.open("wb", buffering=1 << 16))
        self._count = 0

    def add(self, values: Any) -> None:
        """Appends an array of numbers."""
        whole = np.ascontiguousarray(values, dtype=self._dtype)
        self._file.write(whole.data)
        self._count += whole.size

    def __len__(self) -> int:
        return self._count

    def buffer(self) -> pa.Buffer:
        """The appended numbers as a memory-mapped buffer; nothing can be appended afterwards."""
        self._file.close()
        if not self._count:
            return pa.py_buffer(b"")
        with pa.memory_map(str(self._path)) as file:
            return file.read_buffer()

    def finish(self) -> NDArray[Any]:
        """The appended numbers as a memory-mapped array; nothing can be appended afterwards."""
        return np.frombuffer(self.buffer(), dtype=self._dtype)


class _Column(Protocol):
    """A column to which arrays are appended."""

    def add(self, chunk: Any) -> None:
        """Appends a non-empty array without nulls."""

    def finish(self) -> pa.Array:
        """The appended rows as a memory-mapped array; nothing can be appended afterwards."""


class _Numbers:
    """A column of numbers."""

    def __init__(self, kind: pa.DataType, path: Path, open_files: ExitStack) -> None:
        self._kind = kind
        self._file = NumbersFile(path, kind.to_pandas_dtype(), open_files)

    def add(self, chunk: Any) -> None:
        self._file.add(chunk.to_numpy(zero_copy_only=True))

    def finish(self) -> pa.Array:
        return pa.Array.from_buffers(self._kind, len(self._file), [None, self._file.buffer()])


class _Ends:
    """The end offsets of the lists or texts of a column."""

    def __init__(self, path: Path, open_files: ExitStack) -> None:
        self._file = NumbersFile(path, np.int64, open_files)
        self._file.add([0])
        self._end = 0

    def add(self, chunk: Any) -> tuple[int, int]:
        """Appends the offsets of a non-empty chunk; returns the range of its values in the chunk's value buffer."""
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

    def __init__(self, kind: pa.DataType, path: Path, open_files: ExitStack) -> None:
        self._kind = kind
        self._ends = _Ends(path.with_name(f"{path.name}.ends"), open_files)
        self._bytes = NumbersFile(path, np.uint8, open_files)

    def add(self, chunk: Any) -> None:
        first, last = self._ends.add(chunk)
        if last > first:
            self._bytes.add(np.frombuffer(chunk.buffers()[2], dtype=np.uint8)[first:last])

    def finish(self) -> pa.Array:
        return pa.Array.from_buffers(self._kind, len(self._ends), [None, self._ends.buffer(), self._bytes.buffer()])


class _Lists:
    """A column of large lists."""

    def __init__(self, kind: pa.DataType, path: Path, open_files: ExitStack) -> None:
        self._kind = kind
        self._ends = _Ends(path.with_name(f"{path.name}.ends"), open_files)
        self._values = _column(kind.value_type, path.with_name(f"{path.name}.values"), open_files)

    def add(self, chunk: Any) -> None:
        self._ends.add(chunk)
        values = chunk.flatten()
        if len(values):
            self._values.add(values)

    def finish(self) -> pa.Array:
        values = self._values.finish()
        return pa.Array.from_buffers(self._kind, len(self._ends), [None, self._ends.buffer()], children=[values])


class _Codes:
    """A dictionary-encoded column of texts."""

    def __init__(self, kind: pa.DataType, path: Path, open_files: ExitStack) -> None:
        self._codes = _Numbers(kind.index_type, path, open_files)
        self._kind = kind
        self._names: pa.Array | None = None

    def add(self, chunk: Any) -> None:
        if self._names is None:
            self._names = chunk.dictionary
        elif not self._names.equals(chunk.dictionary):
            raise ValueError("tables with different dictionaries")
        self._codes.add(chunk.indices)

    def finish(self) -> pa.Array:
        names = pa.array([], self._kind.value_type) if self._names is None else self._names
        return pa.DictionaryArray.from_arrays(self._codes.finish(), names)


def _column(kind: pa.DataType, path: Path, open_files: ExitStack) -> _Column:
    if pa.types.is_large_list(kind):
        return _Lists(kind, path, open_files)
    if pa.types.is_large_string(kind):
        return _Texts(kind, path, open_files)
    if pa.types.is_dictionary(kind):
        return _Codes(kind, path, open_files)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _Numbers(kind, path, open_files)
    raise TypeError(f"no file for a column of {kind}")
