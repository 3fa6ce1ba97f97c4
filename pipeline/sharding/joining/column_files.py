"""Reads tables of new columns (Parquet, Arrow, CSV, TSV or JSON lines, local or in S3) as record batches.

No Python object is created per row.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from pipeline.errors import InputError, UnknownNameError, first_line
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.file_type import HEAD_BYTES, refuse_other_type

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_ARROW = (".arrow", ".feather", ".ipc")
SUFFIXES = (".parquet", *_ARROW, *_DELIMITERS, *_JSON_LINES)
# With embeddings of 1024 float32: 16 MB per batch.
_BATCH_ROWS = 4096
# Read size for Parquet pages; otherwise a column of a row group would be read at once.
_PAGE_BYTES = 1 << 20


def find_files(source: str) -> list[FoundFile]:
    """The files that match an address, sorted by address.

    Args:
        source: a file, a folder, or a pattern with {000..123} or *; local or s3://.
    Raises:
        InputError: there is no file, or a file does not have the suffix of a table.
    """
    files = addresses.find(source, SUFFIXES)
    for file in files:
        if not file.name.lower().endswith(SUFFIXES):
            raise InputError(f"{file.url}: not a known kind of table; its name should end with {', '.join(SUFFIXES)}")
    return files


def fingerprint(source: str) -> str:
    """A digest of the files' names, sizes and modification times or ETags; reads no file."""
    return addresses.listing_digest(find_files(source), addresses.absolute(source))


def batches(file: FoundFile, key: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a file in batches of up to 4096: the key as text, then the columns.

    Args:
        columns: names of the columns; empty: all but the key, in the file's order.
    Raises:
        InputError: the file is damaged, or lacks a column.
    """
    try:
        with closing(_read(file, key, columns)) as file_batches:
            for batch in file_batches:
                names = batch.schema.names
                for name in (key, *columns):
                    if name not in names:
                        raise UnknownNameError(f"column of {file.url}", name, names)
                wanted = columns or [name for name in names if name != key]
                if not wanted:
                    raise InputError(f"{file.url}: has no column other than the key {key!r}")
                for start in range(0, len(batch), _BATCH_ROWS):
                    yield _with_text_key(batch.select([key, *wanted]).slice(start, _BATCH_ROWS), file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file.url}: cannot be read ({first_line(error)})") from None


def _with_text_key(batch: pa.RecordBatch, file: FoundFile) -> pa.RecordBatch:
    """The batch with its first column, the key, as text."""
    name, keys = batch.schema.names[0], batch.column(0)
    if keys.null_count:
        raise InputError(
            f"{file.url}: at least {keys.null_count} rows have no {name!r}; give each row a key, or remove the row"
        )
    kind = keys.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise InputError(f"{file.url}: the key column {name!r} holds {kind}; keys are text or whole numbers")
    keys = keys.cast(pa.large_string())
    keys.validate(full=True)
    return batch.set_column(0, name, keys)


def _read(file: FoundFile, key: str, columns: Sequence[str]) -> Generator[pa.RecordBatch]:
    suffix = os.path.splitext(file.name.lower())[1]
    if suffix in _ARROW and not addresses.is_remote(file.url):
        with pa.memory_map(file.url) as mapped:
            yield from _arrow_batches(mapped)
        return
    with addresses.open_file(file.url) as source:
        if suffix in (*_DELIMITERS, *_JSON_LINES):
            refuse_other_type(file.url, source.read(HEAD_BYTES))
            source.seek(0)
        if suffix == ".parquet":
            with pq.ParquetFile(source, buffer_size=_PAGE_BYTES, pre_buffer=False) as parquet:
                names = parquet.schema_arrow.names
                # If a column is missing, the caller reports it with the existing names.
                wanted = [key, *columns] if columns and {key, *columns} <= set(names) else None
                yield from parquet.iter_batches(batch_size=_BATCH_ROWS, columns=wanted)
        elif suffix in _ARROW:
            yield from _arrow_batches(source)
        elif suffix in _DELIMITERS:
            # Keys of digits are text too: 007 is not 7.
            convert = pa_csv.ConvertOptions(column_types={key: pa.large_string()})
            parse = pa_csv.ParseOptions(delimiter=_DELIMITERS[suffix], newlines_in_values=True)
            yield from pa_csv.open_csv(source, parse_options=parse, convert_options=convert)
        else:
            yield from pa_json.open_json(source)


def _arrow_batches(source: Any) -> Iterator[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from pa.ipc.open_stream(source)
        return
    yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
