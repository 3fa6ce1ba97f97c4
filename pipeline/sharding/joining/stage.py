"""The stage join-columns: joins new columns by key to a shards artifact, without changing its tars.

    look up the row of each key (on-disk table) -> write values at their rows, on disk -> columns.arrow, facts.json

Memory use is one batch of the source and one chunk of the keys, for any number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.artifacts import Artifact
from pipeline.counted import counted
from pipeline.errors import InputError, listed, near_names
from pipeline.sharding.format.column_kind import NO_NUMBER, ColumnKind
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import column_name_fault, write_columns
from pipeline.sharding.format.values import BadValueError, kind_of, split_missing
from pipeline.sharding.joining.column_files import batches, find_files, fingerprint
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.sharding.joining.key_table import KeyTable
from pipeline.sharding.joining.spool import ColumnSpool, open_spool
from pipeline.stage import Workspace

_MAX_SHOWN_KEYS = 3
# Number of keys that are compared with an unknown one to find a similar key: a comparison takes 20 us.
_COMPARED_KEYS = 2000


class JoinColumns:
    """Inputs {"shards"}; output: columns.arrow and facts.json, for `JoinedColumns`. The config must be `resolved`."""

    name: ClassVar[str] = "join-columns"
    version: ClassVar[int] = 1

    def run(self, config: JoinColumnsConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        if config.fingerprint is None:
            raise InputError("join-columns: the config has no source fingerprint; pass config.resolved()")
        config.check()
        if fingerprint(config.source) != config.fingerprint:
            raise InputError(f"{config.source}: changed since the run began; run it again")
        shards = inputs["shards"]
        index = SampleIndex.open(shards)
        join = _Join(config, index, shards.name, work.scratch)
        for rows in join.read_source():
            work.progress(step=rows, note="joining")
        work.progress(note="writing the columns")
        summaries = write_columns(work.output, join.columns(), shards=index.fingerprint)
        missing = {summary.name: summary.missing for summary in summaries}
        missing_values = counted(sum(missing.values()), "value")
        headline = f"{counted(len(summaries), 'column')} for {counted(len(index), 'sample')}, {missing_values} missing"
        return {
            "samples": len(index),
            "columns": len(summaries),
            "missing": missing,
            "source_rows": join.joined + join.dropped,
            "dropped_rows": join.dropped,
            "headline": headline,
        }


class _Join:
    """The join of a table to the samples of an index.

    Its files are in `scratch`, which is emptied first: the run after a killed one starts from the beginning.

    Args:
        shards: name of the shards in error messages.
    """

    def __init__(self, config: JoinColumnsConfig, index: SampleIndex, shards: str, scratch: Path) -> None:
        self.joined = self.dropped = 0
        self._config = config
        self._index = index
        self._shards = shards
        self._scratch = scratch
        for path in sorted(scratch.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        self._table = KeyTable(index.keys, scratch)
        self._seen = np.memmap(scratch / "seen", np.bool_, mode="w+", shape=(len(index),))
        self._kinds: dict[str, ColumnKind | None] = {}
        self._spools: dict[str, ColumnSpool] = {}
        self._unknown: list[str] = []
        # Integer column -> a key with the value NO_NUMBER, which batches also use for a missing value.
        self._keys_with_no_number: dict[str, str] = {}

    def read_source(self) -> Iterator[int]:
        """Reads the table; after each batch, yields the number of rows read so far.

        Raises:
            InputError: a key or a value is invalid, a key is repeated, or unknown keys are an error.
        """
        for file in find_files(self._config.source):
            for batch in batches(file, self._config.key, self._config.columns):
                self._add(batch, file.url)
                yield self.joined + self.dropped
        if self._unknown and self._config.unknown_keys == "error":
            shown = ", ".join(repr(key) for key in self._unknown)
            near = near_names(self._unknown[0], self._index.keys.slice(0, _COMPARED_KEYS).to_pylist())
            raise InputError(
                f"{self._config.source}: {self.dropped:,} of {self.joined + self.dropped:,} keys match no "
                f"sample of {self._shards}, e.g. {shown} (unknown_keys=drop ignores them){near}"
            )

    def columns(self) -> dict[str, tuple[ColumnKind, pa.Array, NDArray[np.bool_]]]:
        """The columns in the order of the index.

        Raises:
            InputError: too many samples have no value, or none has.
        """
        for name, kind in self._kinds.items():
            if kind is None:
                raise InputError(
                    f"{self._config.source}: no sample of {self._shards} has a value in the column {name!r}"
                )
            self._check_missing(name)
        return {
            name: (kind, self._spools[name].finish(), self._spools[name].valid)
            for name, kind in self._kinds.items()
            if kind is not None
        }

    def _add(self, batch: pa.RecordBatch, url: str) -> None:
        keys = batch.column(0)
        rows = self._table.rows(keys)
        known = np.flatnonzero(rows >= 0)
        self._record_unknown(keys, rows)
        rows = rows[known]
        self._refuse_repeats(keys, known, rows, url)
        self._seen[rows] = True
        self.joined += len(rows)
        if len(rows) < len(batch):
            batch = batch.take(pa.array(known))
        names = batch.schema.names[1:]
        if self._kinds and set(names) != set(self._kinds):
            raise InputError(f"{url}: its columns ({listed(names)}) are not those of the files before it")
        for name in names:
            self._kinds.setdefault(name, None)
            try:
                self._put(name, batch.column(name), rows)
            except BadValueError as error:
                key = batch.column(0)[error.row].as_py()
                raise InputError(f"{url}, key {key!r}: the column {name!r} {error}") from None
            except InputError as error:
                raise InputError(f"{url}: the column {name!r} {error}") from None

    def _put(self, name: str, values: pa.Array, rows: NDArray[np.int64]) -> None:
        kind = self._kinds[name] or kind_of(values)
        if kind is None or len(rows) == 0:
            return
        if self._kinds[name] is None:
            if fault := column_name_fault(name):
                raise InputError(fault)
            self._kinds[name] = kind
            self._spools[name] = open_spool(kind, len(self._index), self._scratch / f"column-{len(self._spools)}")
        present, stored = split_missing(values, kind, self._config.nan == "missing")
        if len(stored):
            self._spools[name].put(rows[present], stored)
        if not kind.is_text and not kind.is_float and name not in self._keys_with_no_number and len(stored):
            is_no_number = (kind.numbers(stored).reshape(len(stored), -1) == NO_NUMBER).any(axis=1)
            if is_no_number.any():
                self._keys_with_no_number[name] = self._index.key(int(rows[present][np.flatnonzero(is_no_number)[0]]))

    def _record_unknown(self, keys: pa.Array, rows: NDArray[np.int64]) -> None:
        unknown = np.flatnonzero(rows < 0)
        self.dropped += len(unknown)
        shown = unknown[: max(0, _MAX_SHOWN_KEYS - len(self._unknown))]
        self._unknown += [keys[int(row)].as_py() for row in shown]

    def _refuse_repeats(self, keys: pa.Array, known: NDArray[np.int64], rows: NDArray[np.int64], url: str) -> None:
        repeated = self._seen[rows]
        order = np.argsort(rows, kind="stable")
        repeated[order[1:]] |= rows[order[1:]] == rows[order[:-1]]
        if repeated.any():
            some = sorted({keys[int(row)].as_py() for row in known[repeated][: 4 * _MAX_SHOWN_KEYS]})[:_MAX_SHOWN_KEYS]
            raise InputError(
                f"{url}: several rows have the same key, e.g. {listed([*map(repr, some)])}; give each sample one row "
                "(several texts as a list)"
            )

    def _check_missing(self, name: str) -> None:
        valid = self._spools[name].valid
        missing = len(valid) - int(np.count_nonzero(valid))
        share = self._config.max_missing_share
        if missing > share * len(valid):
            some = ", ".join(repr(self._index.key(row)) for row in _first_false(valid, _MAX_SHOWN_KEYS))
            raise InputError(
                f"{self._config.source}: {missing:,} of {len(valid):,} samples of {self._shards} have no value in the "
                f"column {name!r} ({missing / len(valid):.1%}), e.g. {some}; max_missing_share is {share}"
            )
        if missing and name in self._keys_with_no_number:
            raise InputError(
                f"{self._config.source}, key {self._keys_with_no_number[name]!r}: the column {name!r} holds "
                f"{NO_NUMBER}, which in a batch stands for a missing value ({missing:,} samples have none); give the "
                "column as float"
            )


def _first_false(values: NDArray[np.bool_], limit: int) -> list[int]:
    rows: list[int] = []
    for first in range(0, len(values), 1 << 20):
        rows += (first + np.flatnonzero(~values[first : first + (1 << 20)])[: limit - len(rows)]).tolist()
        if len(rows) == limit:
            break
    return rows
