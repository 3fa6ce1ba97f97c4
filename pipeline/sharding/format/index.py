"""The sample index: one row for each image, so that any sample can be read by its number.

The row number is the sample's id. The index is stored twice: `index.parquet` for users and tools,
`index.arrow` (uncompressed Arrow IPC, one record batch) for Tutelage: it is memory-mapped, its numeric
columns are NumPy views of the map, and a process's memory does not grow with the data set.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import DamagedError, UnknownNameError, first_line
from pipeline.json_file import write_json
from pipeline.sharding.format.arrow_file import arrow_sha256, write_arrow
from pipeline.sharding.format.data_sets import DataSet, data_sets_metadata, data_sets_of
from pipeline.sharding.format.mapped_columns import concat_on_disk

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact

SPLITS = ("train", "val", "test")

# Types with 64-bit offsets: a column of Arrow's 32-bit string type is limited to 2 GiB of text.
_TEXT = pa.large_string()
SCHEMA = pa.schema(
    [
        pa.field("key", _TEXT, nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("captions", pa.large_list(_TEXT), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("content_hash", _TEXT, nullable=False),
        pa.field("split", pa.int8(), nullable=False),
        pa.field("group", pa.int32(), nullable=False),
        pa.field("node", pa.int32(), nullable=False),
        pa.field("source", pa.dictionary(pa.int16(), pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row of the index.

    Attributes:
        key: name of the sample in the shard: its members are KEY.png, KEY.json, KEY.txt.
        shard: position of its shard in `SampleIndex.shard_names`.
        offset: offset of the image's data in the shard, in bytes.
        length: size of the image's data, in bytes.
        label: position of its label in `SampleIndex.label_names`; -1 for none.
        captions: captions of the image, the most literal first.
        content_hash: the first 32 hex digits of the SHA-256 of the image's data.
        split: position of its split in `SPLITS`.
        group: its content group; samples of a group and a family are in the same split.
        node: its leaf in `SampleIndex.taxonomy`; -1 for none.
        family: name of the images of one origin, e.g. of one artist, or the data set's name; the column `source`.
    """

    key: str
    shard: int
    offset: int
    length: int
    label: int
    captions: tuple[str, ...]
    width: int
    height: int
    content_hash: str
    split: int
    group: int
    node: int
    family: str


@dataclass(frozen=True, slots=True)
class TaxonomyNode:
    """A node of the taxonomy; its parent precedes it in the list, the root's parent is -1."""

    name: str
    parent: int


def content_hash(data: bytes) -> str:
    """The first 32 hex digits of the SHA-256 of `data`: the first half of the output of `sha256sum`."""
    return hashlib.sha256(data).hexdigest()[:32]


class SampleIndex:
    """The rows of a shards artifact, by column.

    Args:
        table: a table with `SCHEMA`, in one chunk.
        fingerprint: SHA-256 of the table's Arrow file, if known.

    Attributes:
        table: the rows, with `SCHEMA`.
        keys: [rows] the key of each row, memory-mapped.
        caption_lists: [rows] the captions of each row, memory-mapped.
        content_hashes: [rows] the content hash of each row, memory-mapped.
        labels, splits, groups, nodes, shards, widths, heights: [rows] read-only NumPy views.
        offsets, lengths: [rows] byte range of the image's data in its shard.
        family_codes: [rows] positions in `family_names`.
        data_sets: the rows of each data set of a mixture; empty without a mixture.
    """

    def __init__(self, table: pa.Table, fingerprint: str | None = None) -> None:
        self.table = table
        self._fingerprint = fingerprint
        self.shards: NDArray[np.int32] = _view(table, "shard")
        self.offsets: NDArray[np.int64] = _view(table, "offset")
        self.lengths: NDArray[np.int32] = _view(table, "length")
        self.labels: NDArray[np.int32] = _view(table, "label")
        self.widths: NDArray[np.int32] = _view(table, "width")
        self.heights: NDArray[np.int32] = _view(table, "height")
        self.splits: NDArray[np.int8] = _view(table, "split")
        self.groups: NDArray[np.int32] = _view(table, "group")
        self.nodes: NDArray[np.int32] = _view(table, "node")
        families = _chunk(table, "source")
        self.family_codes: NDArray[np.int16] = families.indices.to_numpy(zero_copy_only=True)
        self.family_names: tuple[str, ...] = tuple(families.dictionary.to_pylist())
        metadata = table.schema.metadata
        self.shard_names: tuple[str, ...] = tuple(json.loads(metadata[b"shards"]))
        self.label_names: tuple[str, ...] = tuple(json.loads(metadata[b"labels"]))
        self.taxonomy: tuple[TaxonomyNode, ...] = tuple(
            TaxonomyNode(node["name"], node["parent"]) for node in json.loads(metadata[b"taxonomy"])
        )
        self.data_sets: tuple[DataSet, ...] = data_sets_of(metadata)
        self.keys: pa.LargeStringArray = _chunk(table, "key")
        self.caption_lists: pa.LargeListArray = _chunk(table, "captions")
        self.content_hashes: pa.LargeStringArray = _chunk(table, "content_hash")

    @classmethod
    def open(cls, artifact: Artifact) -> SampleIndex:
        """The index of a shards artifact, memory-mapped."""
        index = cls.read(artifact.path("index.arrow"))
        index._fingerprint = artifact.files["index.arrow"].sha256
        return index

    @classmethod
    def read(cls, path: Path) -> SampleIndex:
        """An index file: index.arrow is memory-mapped, index.parquet is read into memory.

        Raises:
            DamagedError: the file is not an index.
        """
        try:
            if path.suffix == ".parquet":
                table = _canonical(pq.read_table(path))
            else:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (pa.ArrowInvalid, ValueError) as error:
            raise DamagedError(f"{path}: not a sample index ({first_line(error)}); re-run shard-dataset") from None
        if not table.schema.equals(SCHEMA) or not (table.schema.metadata or {}).get(b"shards"):
            raise DamagedError(f"{path}: its columns are not those of a sample index; re-run shard-dataset")
        return cls(table)

    @classmethod
    def assemble(
        cls,
        tables: Iterable[pa.Table],
        folder: Path,
        *,
        shard_names: Sequence[str],
        label_names: Sequence[str],
        taxonomy: Sequence[TaxonomyNode] = (),
        data_sets: Sequence[DataSet] = (),
    ) -> SampleIndex:
        """The index with the concatenated rows of several tables.

        Args:
            tables: tables with the columns of `SCHEMA` and the same order of family names.
            folder: for files that store the columns while the index is used; one table at a time is in memory.
        """
        metadata = {**_metadata(shard_names, label_names, taxonomy), **data_sets_metadata(data_sets)}
        table = concat_on_disk(tables, SCHEMA, folder)
        return cls(table.replace_schema_metadata(SCHEMA.with_metadata(metadata).metadata))

    def write(self, folder: Path) -> None:
        """Writes index.arrow and index.parquet; the same rows give the same bytes."""
        with (folder / "index.arrow").open("wb") as file:
            write_arrow(file, self.table)
        pq.write_table(self.table, folder / "index.parquet", compression="zstd")

    def write_names(self, folder: Path) -> None:
        """Writes labels.json and, for an index with a taxonomy, taxonomy.json."""
        write_json(folder / "labels.json", list(self.label_names))
        if self.taxonomy:
            write_json(folder / "taxonomy.json", {"nodes": _nodes_json(self.taxonomy)})

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self, split: str | None = None) -> NDArray[np.int64]:
        """The ids of a split ("train", "val" or "test"), ascending; all ids if None.

        Raises:
            UnknownNameError: there is no such split.
        """
        if split is None:
            return np.arange(len(self), dtype=np.int64)
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        return np.flatnonzero(self.splits == SPLITS.index(split)).astype(np.int64, copy=False)

    def with_captions(self, captions: pa.Array) -> SampleIndex:
        """The same rows with other captions.

        Args:
            captions: a list of texts per row, without nulls: large_list of large_string.
        """
        index = copy.copy(self)
        index.caption_lists = captions
        return index

    def key(self, id: int) -> str:
        """The name of a sample in its shard."""
        return str(self.keys[int(id)].as_py())

    def captions(self, id: int) -> list[str]:
        """The captions of a sample, the most literal first; [] if it has none."""
        return list(self.caption_lists[int(id)].as_py())

    @property
    def caption_count(self) -> int:
        """The total number of captions of all samples."""
        return len(self.caption_lists.flatten())

    def content_hash(self, id: int) -> str:
        """The first 32 hex digits of the SHA-256 of the image's data."""
        return str(self.content_hashes[int(id)].as_py())

    def content_numbers(self, rows: slice = slice(None)) -> NDArray[np.uint64]:
        """[n, 2] the content hashes of a slice of rows as numbers, which are fast to sort and to compare."""
        start, stop, _ = rows.indices(len(self))
        hashes = self.content_hashes.slice(start, stop - start)
        return np.frombuffer(bytes.fromhex("".join(hashes.to_pylist())), dtype=">u8").reshape(-1, 2).astype(np.uint64)

    def family(self, id: int) -> str:
        """The family of a sample, see `SampleRow`."""
        return self.family_names[self.family_codes[int(id)]]

    def row(self, id: int) -> SampleRow:
        """All columns of a sample."""
        values = self.table.slice(int(id), 1).to_pylist()[0]
        family = values.pop("source")
        return SampleRow(**{**values, "captions": tuple(self.captions(id)), "family": family})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the index's Arrow file in hex: indexes with equal fingerprints have the same rows."""
        if self._fingerprint is not None:
            return self._fingerprint
        return arrow_sha256(self.table)


def replace_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """Rows of an index with some of their columns replaced; `table` may lack the replaced columns."""
    values = [columns[name] if name in columns else table.column(name) for name in SCHEMA.names]
    return pa.Table.from_arrays(values, schema=SCHEMA)


def _metadata(
    shard_names: Sequence[str], label_names: Sequence[str], taxonomy: Sequence[TaxonomyNode]
) -> dict[str, str]:
    return {
        "shards": json.dumps(list(shard_names)),
        "labels": json.dumps(list(label_names)),
        "taxonomy": json.dumps(_nodes_json(taxonomy)),
    }


def _nodes_json(taxonomy: Sequence[TaxonomyNode]) -> list[dict[str, Any]]:
    return [{"name": node.name, "parent": node.parent} for node in taxonomy]


def _canonical(table: pa.Table) -> pa.Table:
    """A table read from Parquet, in the form of `index.arrow`: types, metadata, one chunk, sorted family names."""
    names = ("shards", "labels", "taxonomy")
    stored = table.schema.metadata or {}
    metadata = {name: stored.get(name.encode(), b"") for name in names} | data_sets_metadata(data_sets_of(stored))
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}")
    arrays = []
    for field in SCHEMA:
        column = table.column(field.name)
        if pa.types.is_dictionary(field.type):
            arrays.append(_dictionary(column.to_pylist(), field.type))
        else:
            whole = column.cast(field.type).combine_chunks()
            arrays.append(pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole)
    return pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(metadata))


def _dictionary(values: list[Any], kind: pa.DictionaryType) -> pa.Array:
    """Names as dictionary codes; sorted, so that the codes do not depend on the order of the rows."""
    names = sorted(set(values))
    codes = {name: code for code, name in enumerate(names)}
    indices = pa.array([codes[value] for value in values], type=kind.index_type)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, type=kind.value_type))


def _chunk(table: pa.Table, name: str) -> Any:
    return table.column(name).chunk(0)


def _view(table: pa.Table, name: str) -> NDArray[Any]:
    view: NDArray[Any] = _chunk(table, name).to_numpy(zero_copy_only=True)
    return view
