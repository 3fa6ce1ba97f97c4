"""JoinedColumns: additional columns of a shards artifact, one row per sample, separate from the tars and the index.

`columns.arrow` (uncompressed Arrow IPC, one record batch, rows in the order of the index) is memory-mapped: its
numeric columns are NumPy views of the map, and a process's memory does not grow with the data set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import DamagedError, InputError, UnknownNameError
from pipeline.json_file import write_json
from pipeline.sharding.format.arrow_file import write_arrow
from pipeline.sharding.format.column_kind import ColumnKind
from pipeline.sharding.format.index import SampleIndex

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact

_COLUMNS_FILE = "columns.arrow"
_SUMMARIES_FILE = "facts.json"
# Suffix of the validity column of a column: 1 where the sample has a value.
_VALID = "/valid"

Keep = Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """Name and type of a column, and how many samples have no value.

    Attributes:
        missing: number of samples without a value.
    """

    name: str
    kind: ColumnKind
    missing: int


def column_name_fault(name: str) -> str | None:
    """The reason why a column cannot have this name, or None."""
    return f"a joined column cannot be called {name!r}; rename it" if not name or name.endswith(_VALID) else None


def write_columns(
    folder: Path,
    columns: Mapping[str, tuple[ColumnKind, pa.Array, NDArray[np.bool_]]],
    *,
    shards: str,
) -> list[ColumnSummary]:
    """Writes columns.arrow and facts.json; the same values give the same bytes.

    Args:
        columns: name -> kind, values without nulls, [rows] mask of the rows that have a value.
        shards: fingerprint of the index to which the rows belong.
    """
    fields: list[pa.Field] = []
    arrays: list[pa.Array] = []
    summaries = []
    for name, (kind, values, valid) in columns.items():
        validity = pa.Array.from_buffers(pa.uint8(), len(valid), [None, pa.py_buffer(valid.view(np.uint8))])
        fields += [pa.field(name, values.type, nullable=False), pa.field(name + _VALID, pa.uint8(), nullable=False)]
        arrays += [values, validity]
        summaries.append(ColumnSummary(name, kind, len(valid) - int(np.count_nonzero(valid))))
    with (folder / _COLUMNS_FILE).open("wb") as file:
        write_arrow(file, pa.Table.from_arrays(arrays, schema=pa.schema(fields)))
    content = {
        "shards": shards,
        "samples": len(arrays[0]),
        "columns": [
            {
                "name": summary.name,
                "type": "text" if summary.kind.is_text else str(summary.kind.dtype),
                "length": summary.kind.length,
                "missing": summary.missing,
            }
            for summary in summaries
        ],
    }
    write_json(folder / _SUMMARIES_FILE, content)
    return summaries


class JoinedColumns:
    """The columns of a join-columns artifact.

    Args:
        table: a table written by `write_columns`, in one chunk.
        summaries: one for each column, in the order of the table.
        where: name of the artifact, for error messages.
    """

    def __init__(self, table: pa.Table, summaries: Sequence[ColumnSummary], where: str) -> None:
        self._table = table
        self._where = where
        self.summaries = {summary.name: summary for summary in summaries}
        self._numbers = {summary.name: self._view(summary) for summary in summaries if not summary.kind.is_text}

    @classmethod
    def open(cls, artifact: Artifact, index: SampleIndex) -> JoinedColumns:
        """The columns of an artifact, memory-mapped.

        Raises:
            InputError: they were joined to shards other than those of the index.
            DamagedError: the files were not written by `write_columns`.
        """
        try:
            content = json.loads(artifact.read(_SUMMARIES_FILE))
            summaries = [
                ColumnSummary(
                    column["name"],
                    ColumnKind(np.dtype(object if column["type"] == "text" else column["type"]), column["length"]),
                    column["missing"],
                )
                for column in content["columns"]
            ]
            shards = content["shards"]
            table = pa.ipc.open_file(pa.memory_map(str(artifact.path(_COLUMNS_FILE)))).read_all()
        except (ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
            raise DamagedError(f"{artifact.name}: holds no joined columns ({error}); re-run join-columns") from None
        if shards != index.fingerprint or len(table) != len(index):
            raise InputError(
                f"{artifact.name}: its columns were joined to other shards ({content['samples']:,} samples; these have "
                f"{len(index):,}); run join-columns on these shards"
            )
        return cls(table, summaries, artifact.name)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def numbers(self, name: str) -> NDArray[Any]:
        """A numeric column as a read-only view: [rows] or [rows, D]; NaN or -1 where a sample has no value.

        Raises:
            UnknownNameError: there is no such column.
            InputError: it is text.
        """
        if self._summary(name).kind.is_text:
            raise InputError(f"{self._where}: the column {name!r} is text; a column of numbers is needed")
        return self._numbers[name]

    def valid(self, name: str) -> NDArray[np.bool_]:
        """[rows] mask of the samples that have a value, a read-only view.

        Raises:
            UnknownNameError: there is no such column.
        """
        self._summary(name)
        view: NDArray[np.uint8] = self._table.column(name + _VALID).chunk(0).to_numpy(zero_copy_only=True)
        return view.view(np.bool_)

    def texts(self, name: str) -> pa.Array:
        """A text column, memory-mapped: a list of texts per row, empty where a sample has none.

        Raises:
            UnknownNameError: there is no such column.
            InputError: it is not text.
        """
        if not self._summary(name).kind.is_text:
            raise InputError(
                f"{self._where}: the column {name!r} is {self.summaries[name].kind}; a column of text is needed"
            )
        return self._table.column(name).chunk(0)

    def batch(self, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The numeric columns of some samples by name: float32 or int64, [n] or [n, D]; text columns are omitted."""
        return {
            name: view[ids].astype(np.float32 if self.summaries[name].kind.is_float else np.int64)
            for name, view in self._numbers.items()
        }

    def in_ranges(self, keep: Keep, first: int, last: int) -> NDArray[np.bool_]:
        """[last - first] mask of the samples first to last - 1 that are within the range of every column in `keep`.

        Args:
            keep: column -> (minimum, maximum), both inclusive; None: no limit.
        Raises:
            UnknownNameError: there is no such column.
            InputError: it does not have exactly one number per sample.
        """
        mask = np.ones(last - first, dtype=bool)
        for name, (low, high) in keep.items():
            values = self._one_number_per_sample(name)[first:last]
            mask &= self.valid(name)[first:last]
            if low is not None:
                mask &= values >= low
            if high is not None:
                mask &= values <= high
        return mask

    def _one_number_per_sample(self, name: str) -> NDArray[Any]:
        values = self.numbers(name)
        if values.ndim != 1:
            raise InputError(f"{self._where}: the column {name!r} has {values.shape[1]} numbers a sample, not one")
        return values

    def _summary(self, name: str) -> ColumnSummary:
        if name not in self.summaries:
            raise UnknownNameError(f"column of {self._where}", name, self.summaries)
        return self.summaries[name]

    def _view(self, summary: ColumnSummary) -> NDArray[Any]:
        column = self._table.column(summary.name).chunk(0)
        if summary.kind.length is None:
            view: NDArray[Any] = column.to_numpy(zero_copy_only=True)
            return view
        flat: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=True)
        return flat.reshape(-1, summary.kind.length)


def open_columns(
    artifact: Artifact | None, index: SampleIndex, *, keep: Keep | None = None, captions_from: str | None = None
) -> tuple[SampleIndex, JoinedColumns | None]:
    """The index with the requested captions, and the joined columns or None.

    Raises:
        InputError: a requested column is missing or has the wrong type.
    """
    if artifact is None:
        if keep or captions_from is not None:
            option = f"keep: {', '.join(keep)}" if keep else f"captions_from: {captions_from}"
            raise InputError(f"{option}: no columns were joined to the shards; name the table as columns.source")
        return index, None
    columns = JoinedColumns.open(artifact, index)
    columns.in_ranges(keep or {}, 0, 0)  # Selects from no samples, only to check the columns of `keep`.
    return (index if captions_from is None else index.with_captions(columns.texts(captions_from))), columns
