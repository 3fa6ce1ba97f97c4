"""items.parquet: every readable item of the source as it was when the shards were made, whether it is stored or not.

A later run compares its source with this listing (delta.py): what is unchanged is not read again, and duplicates,
splits and caps are decided over all items, as if all had been read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.artifacts import Artifact
from pipeline.errors import DamagedError
from pipeline.sharding.chunks import Columns, read_table
from pipeline.sharding.scratch import Scratch

FILE = "items.parquet"
# Numbers that are copied from the chunk tables, and mean the same in every artifact.
_COPIED = (
    *("item", "facts", "stamp", "hash_high", "hash_low", "label", "given"),
    *("group_code", "named", "place", "meaning", "order", "stored"),
)
SCHEMA = pa.schema(
    {
        # What people call it; the next four are hashes, see facts.py.
        "name": pa.large_string(),
        "item": pa.uint64(),
        "facts": pa.uint64(),
        "stamp": pa.uint64(),
        # Its number in the index, -1 if it is not stored (a duplicate, or beyond a cap).
        "row": pa.int64(),
        "hash_high": pa.uint64(),
        "hash_low": pa.uint64(),
        "label": pa.int32(),
        "source": pa.string(),
        # Its leaf in the taxonomy.
        "node": pa.int32(),
        "given": pa.int8(),
        "group_code": pa.uint64(),
        "named": pa.int8(),
        "place": pa.float64(),
        "meaning": pa.uint64(),
        "order": pa.uint64(),
        "stored": pa.int64(),
    }
)


@dataclass(frozen=True, eq=False)
class Listing:
    """The items of a shards artifact.

    Attributes:
        table: with `SCHEMA`, in the order of the source.
        numbers: [items] its numeric columns.
    """

    table: pa.Table
    numbers: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def open(cls, artifact: Artifact) -> Listing:
        """The listing of an artifact.

        Raises:
            DamagedError: the file is none.
        """
        try:
            table = pq.read_table(artifact.path(FILE)).cast(SCHEMA).combine_chunks()
        except (pa.ArrowInvalid, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise DamagedError(f"{artifact.uri}/{FILE}: no listing of items ({reason}); re-run its stage") from None
        numeric = [field.name for field in SCHEMA if not _is_text(field.type)]
        return cls(table, {name: table.column(name).to_numpy() for name in numeric})

    def names(self, rows: NDArray[np.int64]) -> list[str]:
        """What people call some items."""
        names: list[str] = self.table.column("name").take(pa.array(rows)).to_pylist()
        return names


def write_listing(folder: Path, tables: Iterable[pa.Table]) -> None:
    """Writes items.parquet; each table has the columns of `SCHEMA`."""
    with pq.ParquetWriter(folder / FILE, SCHEMA, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table, row_group_size=1 << 20)


def chunk_listing(
    scratch: Scratch,
    columns: Columns,
    chunk: int,
    *,
    rows: NDArray[np.int64],
    nodes: NDArray[np.int32],
) -> pa.Table:
    """The part of the listing that a chunk's images are.

    Args:
        rows: [rows of the columns] the number of each image in the index, -1 for none.
        nodes: [node_paths] number of each path's node in the taxonomy.
    """
    mine = slice(columns.starts[chunk], columns.starts[chunk + 1])
    table = read_table(scratch, chunk)
    names = np.array([*columns.source_names, ""], dtype=object)
    values = {
        "name": table.column("name"),
        "row": pa.array(rows[mine]),
        "source": pa.array(names[columns.source[mine]].tolist(), pa.string()),
        "node": pa.array(nodes[columns.node[mine]]),
        **{name: table.column(name) for name in _COPIED},
    }
    return pa.Table.from_arrays([values[field.name] for field in SCHEMA], schema=SCHEMA)


def rows_of_plan(count: int, planned: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """[count] the number in the index of each row of the columns, -1 for one that is not stored.

    Args:
        planned: rows of the columns that are stored.
        ids: their numbers.
    """
    rows = np.full(count, -1, dtype=np.int64)
    rows[planned] = ids
    return rows


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
