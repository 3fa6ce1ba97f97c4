"""Shards of a test that says itself which sample lies where: the product's tars and index, without a source."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa

from pipeline.sharding.format.index import SCHEMA, SampleIndex, SampleRow, TaxonomyNode
from pipeline.sharding.writing.tar_writer import Members, TarFile, shard_name


class Address(NamedTuple):
    """The address of a sample's image: bytes [offset, offset + length) of shard number `shard`."""

    shard: int
    offset: int
    length: int


class SmallShards:
    """Fills shards/SPLIT-NUMBER.tar below a folder, a new one every `samples_per_shard` samples of a split."""

    def __init__(self, folder: Path, samples_per_shard: int) -> None:
        self.shard_names: list[str] = []
        self._folder = folder
        self._samples_per_shard = samples_per_shard
        self._counts: dict[str, int] = {}
        self._tars: dict[str, TarFile] = {}
        self._stack = ExitStack()
        (folder / "shards").mkdir(parents=True, exist_ok=True)

    def add(self, split: str, key: str, members: Members) -> Address:
        """Appends a sample; the first member is its image."""
        number = self._counts.get(split, 0)
        self._counts[split] = number + 1
        name = shard_name(split, number // self._samples_per_shard)
        if name not in self._tars:
            self._tars[name] = TarFile(self._folder / name)
            self._stack.callback(self._tars[name].close)
            self.shard_names.append(name)
        return Address(self.shard_names.index(name), *self._tars[name].add(key, members))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ignored: object) -> None:
        self._stack.close()


def index_of(
    rows: Iterable[SampleRow],
    *,
    shard_names: Sequence[str],
    label_names: Sequence[str],
    taxonomy: Sequence[TaxonomyNode] = (),
) -> SampleIndex:
    """An index with these rows; their order gives the ids."""
    rows = list(rows)
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names if name != "source"}
    families = sorted({row.family for row in rows})
    codes = pa.array([families.index(row.family) for row in rows], pa.int16())
    arrays = {name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}
    arrays["source"] = pa.DictionaryArray.from_arrays(codes, pa.array(families, pa.string()))
    table = pa.Table.from_arrays([arrays[name] for name in SCHEMA.names], schema=SCHEMA)
    with tempfile.TemporaryDirectory() as folder:  # Its files stay mapped.
        return SampleIndex.assemble(
            [table] if rows else [],
            Path(folder),
            shard_names=shard_names,
            label_names=label_names,
            taxonomy=taxonomy,
        )
