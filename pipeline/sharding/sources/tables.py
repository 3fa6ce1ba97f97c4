"""Reads the rows of CSV, TSV, JSON lines and Parquet files, local or in S3, without having a whole file in memory.

A row that cannot be used (invalid JSON, too few fields, text that is not UTF-8) is yielded with its problem: one
damaged line among millions is quarantined and does not end the run. A file that is not a table, or whose head has
other separators or another encoding, is an error.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.counted import counted
from pipeline.errors import InputError, first_line, listed
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.file_type import HEAD_BYTES, file_type, refuse_other_type
from pipeline.sharding.sources.foreign_json import parse_json

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = ".parquet"
SUFFIXES = (*_DELIMITERS, *_JSON_LINES, _PARQUET)
_BATCH_ROWS = 4096
# Buffer size for reading a column of Parquet, instead of a whole column chunk at once.
_PAGE_BYTES = 1 << 20
# JSON lines of which the keys are the columns; more than one, because a line may omit null values.
_HEAD_LINES = 1000
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MAX_CELL_CHARS = 1 << 24

# Python's limit of 131,072 characters is too small for a long caption or an embedded polygon. It holds for the process.
csv.field_size_limit(_MAX_CELL_CHARS)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        number: number of the row in its file, from 1.
        values: column -> value; a missing value or null is absent.
        problem: the reason why the row cannot be used, or None.
    """

    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def is_parquet(file: FoundFile) -> bool:
    return file.name.lower().endswith(_PARQUET)


def open_parquet(url: str) -> pq.ParquetFile:
    """A Parquet file whose columns are read page by page.

    Raises:
        InputError: it is not a Parquet file.
    """
    try:
        source = addresses.open_file(url) if addresses.is_remote(url) else url
        return pq.ParquetFile(source, buffer_size=_PAGE_BYTES, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        with closing(addresses.open_file(url)) as file:
            what = file_type(file.read(HEAD_BYTES))
        reason = first_line(error) if what in (None, "a Parquet file") else f"it is {what}"
        raise InputError(f"{url}: not a Parquet file ({reason})") from None


def columns_of(file: FoundFile) -> tuple[str, ...]:
    """The column names of a table; for JSON lines, the keys of the first rows.

    Raises:
        InputError: it is not a table, or it is empty.
    """
    if is_parquet(file):
        with closing(open_parquet(file.url)) as parquet:
            return tuple(parquet.schema_arrow.names)
    if _suffix(file) in _DELIMITERS:
        with closing(_open_text(file.url)) as text:
            return _read_head(file, csv.reader(text, delimiter=_DELIMITERS[_suffix(file)]))
    rows = list(islice(_json_rows(file), _HEAD_LINES))
    if rows and all(row.problem is not None for row in rows):
        raise InputError(f"{file.url}: line {rows[0].number}: {rows[0].problem}")
    if not rows:
        raise InputError(f"{file.url}: is empty")
    return tuple(dict.fromkeys(name for row in rows if row.problem is None for name in row.values))


def _read_head(file: FoundFile, reader: Iterator[list[str]]) -> tuple[str, ...]:
    """Reads the first line; returns the column names in it.

    Raises:
        InputError: there are none, or the line has another separator.
    """
    try:
        head = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{file.url}: its first line is not a line of column names ({error})") from None
    # pandas writes an empty name for its index; no config can name that column.
    if not head or not any(name.strip() for name in head):
        raise InputError(f"{file.url}: its first line is not a line of column names")
    if not all(map(_is_text, head)):
        raise InputError(f"{file.url}: its first line is not UTF-8; save the table as UTF-8")
    twice = next((name for name in head if name and head.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{file.url}: two columns are called {twice!r}; give them different names")
    wanted = _DELIMITERS[_suffix(file)]
    other = next((sign for sign in _SEPARATORS if sign != wanted and sign in head[0]), None)
    if len(head) == 1 and other is not None:
        raise InputError(
            f"{file.url}: its columns are separated by {_SEPARATORS[other]}, and a {_suffix(file)} file is read with "
            f"{_SEPARATORS[wanted]}; save it with {_SEPARATORS[wanted]}"
            + (", or name it .tsv" if other == "\t" else ", or name it .csv" if other == "," else "")
        )
    return tuple(head)


def rows_of(file: FoundFile, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a table, in order, with the values of these columns.

    Raises:
        InputError: it is not a table.
    """
    if is_parquet(file):
        return _parquet_rows(file, columns)
    if _suffix(file) in _DELIMITERS:
        return _delimited_rows(file, frozenset(columns))
    return _json_rows(file)


def require_columns(file: FoundFile, columns: Sequence[str]) -> None:
    """Rejects a table that lacks one of these columns; JSON lines are accepted, because a line may omit null values.

    Raises:
        InputError: a column is missing; the message lists the existing columns.
    """
    if _suffix(file) in _JSON_LINES:
        return
    there = columns_of(file)
    missing = next((name for name in columns if name not in there), None)
    if missing is not None:
        raise InputError(f"{file.url}: has no column {missing!r}; it has {listed(there)}")


def check_columns(file: FoundFile, wanted: Mapping[str, str | None]) -> None:
    """Rejects a table that lacks a column.

    Args:
        wanted: config field -> the column that it names, or None.
    Raises:
        InputError: a column is missing; the message lists the existing columns.
    """
    there = columns_of(file)
    for name, column in wanted.items():
        if column is not None and column not in there:
            # A line of JSON may omit null values, so that no line of the head need have the column.
            if _suffix(file) in _JSON_LINES and name != "path_column":
                continue
            raise InputError(f"{name}: {file.url} has no column {column!r}; it has {listed(there) or 'none'}")


def _suffix(file: FoundFile) -> str:
    for suffix in SUFFIXES:
        if file.name.lower().endswith(suffix):
            return suffix
    raise InputError(f"{file.url}: not a known kind of table; its name should end with {', '.join(SUFFIXES)}")


def _open_text(url: str) -> io.TextIOWrapper:
    file = addresses.open_file(url)
    try:
        refuse_other_type(url, file.read(HEAD_BYTES))
    except InputError:
        file.close()
        raise
    file.seek(0)
    # Invalid UTF-8 becomes lone surrogates, so that only the row with it is rejected.
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _delimited_rows(file: FoundFile, columns: frozenset[str]) -> Iterator[Row]:
    with closing(_open_text(file.url)) as text:
        delimiter = _DELIMITERS[_suffix(file)]
        row_lines: list[str] = []
        reader = csv.reader(_copy_lines(text, row_lines), delimiter=delimiter)
        head = _read_head(file, reader)
        row_lines.clear()
        wanted = [(position, name) for position, name in enumerate(head) if name in columns]
        number, line = 0, reader.line_num
        try:
            for values in reader:
                lines, line = reader.line_num - line, reader.line_num
                is_open = lines > 1 and _ends_in_a_quote(row_lines, delimiter)
                row_lines.clear()
                if not values:
                    continue
                number += 1
                is_open |= lines > 1 and any(_holds_rows(cell, delimiter, len(head)) for cell in values)
                if len(values) == len(head) and not is_open:
                    row = {name: values[position] for position, name in wanted if values[position]}
                    yield _with_encoding_problem(Row(number, row))
                    continue
                problem = f"{counted(len(values), 'field')}, the head has {len(head)}"
                if lines > 1:
                    problem = f"lines {line - lines + 1} to {line} are one row: is a quote not closed?"
                # Each line inside the open quote is a lost row.
                for lost in range(lines):
                    number += lost > 0
                    yield Row(number, problem=problem)
        except csv.Error as error:
            why = str(error)
            if "field limit" in why:
                why = f"a cell of more than {_MAX_CELL_CHARS:,} characters: is a quote not closed?"
            raise InputError(f"{file.url}: line {reader.line_num}: not a {_suffix(file)} table ({why})") from None


def _copy_lines(lines: Iterable[str], copies: list[str]) -> Iterator[str]:
    """Yields the lines, and appends each to `copies`."""
    for line in lines:
        copies.append(line)
        yield line


def _ends_in_a_quote(lines: list[str], delimiter: str) -> bool:
    """Whether a row of several lines ends at the end of the file, inside an unclosed quote."""
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return str(error) == "unexpected end of data"
    return False


def _holds_rows(cell: str, delimiter: str, columns: int) -> bool:
    """Whether a cell of several lines contains rows of the table because of an unclosed quote."""
    inner = cell.split("\n")[1:-1]
    # A caption may have several lines, each with one comma: two columns therefore require more lines.
    return len(inner) >= (2 if columns > 2 else 4) and all(line.count(delimiter) == columns - 1 for line in inner)


def _json_rows(file: FoundFile) -> Iterator[Row]:
    with closing(_open_text(file.url)) as text:
        number = 0
        for line in text:
            if not line.strip():
                continue
            number += 1
            try:
                values = parse_json(line)
            except (ValueError, RecursionError) as error:
                yield Row(number, problem=f"not JSON ({_json_fault(error)})")
                continue
            if not isinstance(values, dict):
                yield Row(number, problem="not a JSON object")
            else:
                row = {name: value for name, value in values.items() if value is not None}
                yield _with_encoding_problem(Row(number, row))


def _json_fault(error: ValueError | RecursionError) -> str:
    """An error of the parser without its line number, which is always 1, since it parses one line."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at column {error.colno}"
    return first_line(error)


def _parquet_rows(file: FoundFile, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    with closing(open_parquet(file.url)) as parquet:
        present = [name for name in columns if name in parquet.schema_arrow.names]
        if not present:
            yield from (Row(number) for number in range(1, parquet.metadata.num_rows + 1))
            return
        try:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=present):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, {name: value for name, value in values.items() if value is not None})
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
            raise InputError(f"{file.url}: damaged near row {number + 1} ({first_line(error)})") from None


def _with_encoding_problem(row: Row) -> Row:
    """The row, with a problem if one of its texts is not UTF-8."""
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
