"""Builds the index rows of some samples from their rows in the chunk tables and their numbers in the index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.sharding.format.index import SCHEMA, replace_columns
from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.numbering import Numbering


@dataclass(frozen=True, eq=False)
class IndexNumbers:
    """The numbers that some samples have in the index.

    Attributes:
        groups, nodes, families, labels: [samples] content group, taxonomy node, family and label.
    """

    groups: NDArray[np.int32]
    nodes: NDArray[np.int32]
    families: NDArray[np.int16]
    labels: NDArray[np.int32]

    @classmethod
    def of_rows(cls, columns: PlanColumns, numbering: Numbering, ids: slice, rows: NDArray[np.int64]) -> IndexNumbers:
        """The numbers of the samples `ids`; `rows` are their rows of the columns."""
        return cls(
            numbering.groups[ids],
            numbering.nodes[columns.node[rows]],
            numbering.families[columns.family[rows]],
            numbering.labels[columns.label[rows]],
        )


def final_keys(table: pa.Table, suffixes: Mapping[int, int]) -> list[str]:
    """The stored keys of a chunk table's rows.

    Args:
        suffixes: row of the table -> n, for a row with the stored key KEY-n.
    """
    keys: list[str] = table.column("key").to_pylist()
    for row, number in suffixes.items():
        keys[row] = f"{keys[row]}-{number}"
    return keys


def content_hashes(table: pa.Table) -> list[str]:
    """The content hashes of a chunk table's rows, in hex."""
    high, low = table.column("hash_high").to_pylist(), table.column("hash_low").to_pylist()
    return [f"{first:016x}{second:016x}" for first, second in zip(high, low, strict=True)]


def index_piece(
    table: pa.Table,
    numbers: IndexNumbers,
    family_names: tuple[str, ...],
    *,
    keys: list[str],
    contents: list[str],
    shards: pa.Array,
    offsets: pa.Array,
    splits: NDArray[np.int8],
) -> pa.Table:
    """The index rows of some samples.

    Args:
        table: their rows of the chunk tables, contiguous.
        family_names: the names that the family numbers index; the same in all pieces of an index.
        keys, contents: see `final_keys`, `content_hashes`.
        shards, offsets: the shard of each sample, and the offset of its image in it.
    """
    columns = {
        "key": pa.array(keys, SCHEMA.field("key").type),
        "shard": shards,
        "offset": offsets,
        "content_hash": pa.array(contents, SCHEMA.field("content_hash").type),
        "split": pa.array(splits),
        "group": pa.array(numbers.groups),
        "node": pa.array(numbers.nodes),
        "source": pa.DictionaryArray.from_arrays(pa.array(numbers.families), pa.array(family_names, pa.string())),
        "label": pa.array(numbers.labels),
    }
    return replace_columns(table, columns)
