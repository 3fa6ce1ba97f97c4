"""Rows of tables: CSV, TSV, JSON lines and Parquet, on this machine or in S3, one row in memory at a time.

A row that cannot be read (no JSON, too few fields, text that is not UTF-8) comes out with its problem, so that one
bad line of many millions is quarantined and not the end of the run. A file that is no table at all is an error.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, listed
from pipeline.sharding.sources import places
from pipeline.sharding.sources.places import FoundFile

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = ".parquet"
SUFFIXES = (*_DELIMITERS, *_JSON_LINES, _PARQUET)
_BATCH_ROWS = 4096
# Pages of a column are read in pieces of this size, instead of a row group's whole column at once.
_PAGE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        number: from 1, in its file.
        values: by column; those that are missing or null are left out.
        problem: why the row cannot be used, or None.
    """

    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def is_parquet(file: FoundFile) -> bool:
    return file.name.lower().endswith(_PARQUET)


def open_parquet(url: str) -> pq.ParquetFile:
    """A Parquet file whose columns are read page by page.

    Raises:
        InputError: it is none.
    """
    try:
        source = places.open_file(url) if places.is_remote(url) else url
        return pq.ParquetFile(source, buffer_size=_PAGE_BYTES, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{url}: not a Parquet file ({_first_line(error)})") from None


def columns_of(file: FoundFile) -> tuple[str, ...]:
    """The names of a table's columns; for JSON lines those of its first line.

    Raises:
        InputError: it is no table, or an empty one.
    """
    if is_parquet(file):
        with closing(open_parquet(file.url)) as parquet:
            return tuple(parquet.schema_arrow.names)
    if _suffix(file) in _DELIMITERS:
        with closing(_text(file.url)) as text:
            head = next(csv.reader(text, delimiter=_DELIMITERS[_suffix(file)]), None)
        if not head or not all(head):
            raise InputError(f"{file.url}: its first line is not a line of column names")
        return tuple(head)
    first = next(_json_rows(file), None)
    if first is None or first.problem:
        raise InputError(f"{file.url}: {f'line {first.number}: {first.problem}' if first else 'is empty'}")
    return tuple(first.values)


def rows_of(file: FoundFile, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a table with these columns, in their order."""
    if is_parquet(file):
        return _parquet_rows(file, columns)
    if _suffix(file) in _DELIMITERS:
        return _delimited_rows(file, frozenset(columns))
    return _json_rows(file)


def check_columns(file: FoundFile, wanted: Mapping[str, str | None]) -> None:
    """Refuses a table that lacks a column.

    Args:
        wanted: the column that each config field names, if any.
    Raises:
        InputError: the line says which there are.
    """
    there = columns_of(file)
    for name, column in wanted.items():
        if column is not None and column not in there:
            # JSON lines may leave out what is null, so that the first line need not have every column.
            if _suffix(file) in _JSON_LINES and name != "path_column":
                continue
            raise InputError(f"{name}: {file.url} has no column {column!r}; it has {listed(there)}")


def _suffix(file: FoundFile) -> str:
    for suffix in SUFFIXES:
        if file.name.lower().endswith(suffix):
            return suffix
    raise InputError(f"{file.url}: not a form that is read; its name should end with {', '.join(SUFFIXES)}")


def _text(url: str) -> io.TextIOWrapper:
    # What is not UTF-8 stays visible as lone surrogates, so that just its own row is refused.
    return io.TextIOWrapper(places.open_file(url), encoding="utf-8-sig", errors="surrogateescape", newline="")


def _delimited_rows(file: FoundFile, columns: frozenset[str]) -> Iterator[Row]:
    with closing(_text(file.url)) as text:
        reader = csv.reader(text, delimiter=_DELIMITERS[_suffix(file)])
        try:
            head = next(reader, [])
            wanted = [(place, name) for place, name in enumerate(head) if name in columns]
            for number, values in enumerate((values for values in reader if values), start=1):
                if len(values) != len(head):
                    yield Row(number, problem=f"{len(values)} fields, the head has {len(head)}")
                else:
                    yield _checked(Row(number, {name: values[place] for place, name in wanted if values[place]}))
        except csv.Error as error:
            raise InputError(f"{file.url}: line {reader.line_num}: not a table of this form ({error})") from None


def _json_rows(file: FoundFile) -> Iterator[Row]:
    with closing(_text(file.url)) as text:
        number = 0
        for line in text:
            if not line.strip():
                continue
            number += 1
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Row(number, problem=f"not JSON ({_first_line(error)})")
                continue
            if not isinstance(values, dict):
                yield Row(number, problem="not a JSON object")
            else:
                yield _checked(Row(number, {name: value for name, value in values.items() if value is not None}))


def _parquet_rows(file: FoundFile, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    with closing(open_parquet(file.url)) as parquet:
        kept = [name for name in columns if name in parquet.schema_arrow.names]
        if not kept:
            yield from (Row(number) for number in range(1, parquet.metadata.num_rows + 1))
            return
        try:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=kept):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, {name: value for name, value in values.items() if value is not None})
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
            raise InputError(f"{file.url}: damaged near row {number + 1} ({_first_line(error)})") from None


def _checked(row: Row) -> Row:
    for name, value in row.values.items():
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and not _is_text(text) for text in texts):
            return Row(row.number, row.values, f"its {name} is not UTF-8")
    return row


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
