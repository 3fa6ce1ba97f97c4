"""items.parquet: every readable item of the source at the time of sharding, stored or not.

A later run compares its source with this listing (delta.py): unchanged items are not read again, but duplicates, splits
and caps are decided as if all items had been read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.artifacts import Artifact
from pipeline.errors import DamagedError, first_line
from pipeline.sharding.format.item_names import LISTING_FILE
from pipeline.sharding.format.mapped_columns import concat_on_disk
from pipeline.sharding.writing.chunks import PlanColumns, read_table
from pipeline.sharding.writing.item_columns import ITEM_COLUMNS, PLAN_COLUMNS
from pipeline.sharding.writing.numbering import Numbering
from pipeline.sharding.writing.rare_classes import DROPPED_CLASS
from pipeline.sharding.writing.scratch import Scratch

# Columns whose values depend on the artifact's numbering.
_NUMBERED = ("label", "family", "node")
# A delta does not remove near duplicates, so their hash is not stored.
_PLANNED = {name: kind for name, kind in PLAN_COLUMNS.items() if name != "difference_hash"}
SCHEMA = pa.schema(
    {
        **ITEM_COLUMNS,
        # Its row in the index, -1 if it is not stored (a duplicate, or beyond a cap).
        "row": pa.int64(),
        **_PLANNED,
        "family": pa.string(),
    }
)
# Column -> its name in the file, where they differ.
_FILE_NAMES = {
    "family": "source",
    "name_hash": "item",
    "metadata_hash": "facts",
    "stamp_hash": "stamp",
    "given_split": "given",
    "group_hash": "group_code",
    "has_named_group": "named",
    "split_draw": "place",
    "captions_hash": "meaning",
    "key_hash": "order",
    "sample_bytes": "stored",
}
_FILE_SCHEMA = pa.schema([field.with_name(_FILE_NAMES.get(field.name, field.name)) for field in SCHEMA])
_FROM_CHUNKS = [name for name in SCHEMA.names if name != "row" and name not in _NUMBERED]
# The schema of the memory-mapped columns: family names as numbers.
_CODED = SCHEMA.set(SCHEMA.get_field_index("family"), pa.field("family", pa.int16()))
_READ_ROWS = 1 << 16
# Rows per written row group: small ones compress worse.
ROW_GROUP = 1 << 18


@dataclass(frozen=True, eq=False)
class Listing:
    """The items of a shards artifact, in source order; memory-mapped columns.

    Attributes:
        names: [items] names in the source.
        numbers: column -> [items] its values; those of "family" are positions in `family_names`.
    """

    names: pa.LargeStringArray
    numbers: dict[str, NDArray[Any]]
    family_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def open(cls, artifact: Artifact, folder: Path) -> Listing:
        """The listing of an artifact.

        Args:
            folder: folder for the memory-mapped columns, which must exist while the listing is used.
        Raises:
            DamagedError: the file is not a listing.
        """
        families: dict[str, int] = {}
        try:
            with pq.ParquetFile(artifact.path(LISTING_FILE)) as file:
                table = concat_on_disk(_coded(file, families), _CODED, folder)
        except (pa.ArrowInvalid, ValueError, KeyError) as error:
            raise DamagedError(
                f"{artifact.name}/{LISTING_FILE}: not a listing of items ({first_line(error)}); re-run its stage"
            ) from None
        numbers = {name: table.column(name).chunk(0).to_numpy() for name in SCHEMA.names if name != "name"}
        return cls(table.column("name").chunk(0), numbers, tuple(families))

    def rows(self, rows: NDArray[np.int64], **changed: NDArray[Any]) -> pa.Table:
        """The items at the rows `rows`, with `SCHEMA`.

        Args:
            changed: columns to replace, each [rows].
        """
        columns = []
        for field in SCHEMA:
            if field.name == "name":
                columns.append(self.names.take(pa.array(rows)))
            elif field.name == "family":
                codes = pa.array(self.numbers["family"][rows])
                columns.append(pa.array(self.family_names, field.type).take(codes))
            elif field.name in changed:
                columns.append(pa.array(changed[field.name], field.type))
            else:
                columns.append(pa.array(self.numbers[field.name][rows]))
        return pa.Table.from_arrays(columns, schema=SCHEMA)


def _coded(file: pq.ParquetFile, families: dict[str, int]) -> Iterator[pa.Table]:
    """Yields a listing in batches, with family names as numbers; adds new names to `families`."""
    for batch in file.iter_batches(_READ_ROWS, columns=_FILE_SCHEMA.names):
        table = pa.Table.from_batches([batch]).select(_FILE_SCHEMA.names).rename_columns(SCHEMA.names).cast(SCHEMA)
        names = table.column("family").combine_chunks().dictionary_encode()
        number_of = [families.setdefault(name, len(families)) for name in names.dictionary.to_pylist()]
        codes = np.array(number_of, dtype=np.int16)[names.indices.to_numpy(zero_copy_only=True)]
        position = SCHEMA.get_field_index("family")
        yield table.set_column(position, _CODED.field(position), pa.array(codes))


def write_listing(folder: Path, tables: Iterable[pa.Table]) -> None:
    """Writes items.parquet from tables with `SCHEMA`.

    Items of a dropped class are omitted: to a later run they are new, and it checks again whether the class is too
    small.
    """
    with pq.ParquetWriter(folder / LISTING_FILE, _FILE_SCHEMA, compression="zstd") as writer:
        for table in tables:
            dropped = table.column("label").to_numpy() == DROPPED_CLASS
            stored = table.filter(pa.array(~dropped)) if dropped.any() else table
            writer.write_table(stored.rename_columns(_FILE_SCHEMA.names), row_group_size=ROW_GROUP)


def chunk_listings(
    scratch: Scratch, columns: PlanColumns, id_of_row: NDArray[np.int64], numbering: Numbering
) -> Iterator[pa.Table]:
    """Yields the listing of the images of each chunk.

    Args:
        id_of_row: [rows of the columns] id of the sample of each row, -1 if it is not stored.
    """
    names = np.array([*columns.family_names, ""], dtype=object)
    for chunk, (start, end) in enumerate(pairwise(columns.starts.tolist())):
        table = read_table(scratch, chunk)
        values = {
            "row": pa.array(id_of_row[start:end]),
            "family": pa.array(names[columns.family[start:end]].tolist(), pa.string()),
            "node": pa.array(numbering.nodes[columns.node[start:end]]),
            "label": pa.array(numbering.labels[columns.label[start:end]]),
            **{name: table.column(name) for name in _FROM_CHUNKS},
        }
        yield pa.Table.from_arrays([values[field.name] for field in SCHEMA], schema=SCHEMA)


def ids_by_row(count: int, planned: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """[count] id of the sample of each row of the columns, -1 if it is not stored.

    Args:
        planned: rows of the columns that are stored.
        ids: the ids of their samples.
    """
    id_of_row = np.full(count, -1, dtype=np.int64)
    id_of_row[planned] = ids
    return id_of_row
