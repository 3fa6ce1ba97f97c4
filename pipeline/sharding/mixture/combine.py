"""Concatenates several indexes: the rows of the first data set, then those of the second, and so on.

labels      equal names are one label; new ones follow in the order of the data sets
keys        NAME/KEY, so that keys are unique
families    NAME/FAMILY, or NAME if a data set has one family: metrics by family include metrics by data set
groups      renumbered, so that samples of different data sets never share a group
taxonomy    one tree; the root of each data set is a child of the new root, named after the data set
splits      unchanged, but training samples with an image that any of the data sets holds out are left out
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.sharding.format.data_sets import DataSet
from pipeline.sharding.format.index import SPLITS, SampleIndex, TaxonomyNode, replace_columns

_TRAIN = SPLITS.index("train")
_ROOT = "all"
_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Combined:
    """The combined index, and the number of samples left out.

    Attributes:
        left_out: data set -> number of its training samples whose image is in val or test of any data set.
    """

    index: SampleIndex
    left_out: dict[str, int]


def combine(indexes: Mapping[str, SampleIndex], shard_names: Mapping[str, list[str]], folder: Path) -> Combined:
    """Combines several indexes into one.

    Args:
        indexes: name of the data set -> its index.
        shard_names: name of the data set -> names of its shards in the combined index.
        folder: folder for the memory-mapped columns, which must exist while the index is used.
    Raises:
        InputError: there are more families than an index can have (32,767).
    """
    labels = list(dict.fromkeys(label for index in indexes.values() for label in index.label_names))
    families = sorted({family for name, index in indexes.items() for family in _families(name, index)})
    if len(families) > np.iinfo(np.int16).max:
        raise InputError(f"mixture: {len(families):,} families in all; an index holds {np.iinfo(np.int16).max:,}")
    held_out = pa.concat_arrays([_held_out_hashes(index) for index in indexes.values()])
    taxonomy = [TaxonomyNode(_ROOT, -1)] if any(index.taxonomy for index in indexes.values()) else []
    renumbered: list[_Renumbered] = []
    data_sets: list[DataSet] = []
    names: list[str] = []
    first = first_group = 0
    for name, index in indexes.items():
        included = _included_rows(index, held_out)
        renumbered.append(
            _Renumbered(
                name=name,
                index=index,
                included=included,
                first_shard=len(names),
                first_group=first_group,
                labels=[labels.index(label) for label in index.label_names],
                nodes=_append_taxonomy(taxonomy, name, index),
                families=[families.index(family) for family in _families(name, index)],
            )
        )
        names += shard_names[name]
        rows = int(included.sum())
        data_sets.append(DataSet(name, first, first + rows))
        first += rows
        first_group += int(index.groups.max(initial=-1)) + 1
    family_names = pa.array(families, pa.string())
    combined = SampleIndex.assemble(
        chain.from_iterable(_pieces(data_set, family_names) for data_set in renumbered),
        folder,
        shard_names=names,
        label_names=labels,
        taxonomy=taxonomy,
        data_sets=data_sets,
    )
    return Combined(combined, {data_set.name: int((~data_set.included).sum()) for data_set in renumbered})


@dataclass(frozen=True, eq=False)
class _Renumbered:
    """A data set, and the mapping of its numbers to those of the combined index.

    Attributes:
        included: [rows] whether a sample is in the combined index.
        first_shard, first_group: offsets that are added to the numbers of shards and groups.
        labels, nodes, families: old number -> new number.
    """

    name: str
    index: SampleIndex
    included: NDArray[np.bool_]
    first_shard: int
    first_group: int
    labels: list[int]
    nodes: list[int]
    families: list[int]


def _pieces(data_set: _Renumbered, family_names: pa.Array) -> Iterator[pa.Table]:
    """Yields a data set's rows of the combined index, in batches."""
    index = data_set.index
    for start in range(0, len(index), _BATCH_ROWS):
        rows = slice(start, start + _BATCH_ROWS)
        table = index.table.slice(start, _BATCH_ROWS)
        key = pc.binary_join_element_wise(_scalar(data_set.name), table.column("key").chunk(0), _scalar("/"))
        groups = np.where(index.groups[rows] < 0, -1, index.groups[rows] + np.int32(data_set.first_group))
        values: dict[str, pa.Array] = {
            "key": key,
            "shard": pa.array(index.shards[rows] + np.int32(data_set.first_shard)),
            "label": pa.array(_map_numbers(index.labels[rows], data_set.labels)),
            "group": pa.array(groups.astype(np.int32)),
            "node": pa.array(_map_numbers(index.nodes[rows], data_set.nodes)),
            "source": pa.DictionaryArray.from_arrays(
                pa.array(_map_numbers(index.family_codes[rows], data_set.families)), family_names
            ),
        }
        yield replace_columns(table, values).filter(pa.array(data_set.included[rows]))


def _included_rows(index: SampleIndex, held_out: pa.Array) -> NDArray[np.bool_]:
    """[rows] False for a training sample with a held-out image."""
    included = np.ones(len(index), dtype=np.bool_)
    for start in range(0, len(index), _BATCH_ROWS):
        some = slice(start, start + _BATCH_ROWS)
        known = pc.is_in(index.content_hashes.slice(start, _BATCH_ROWS), held_out).to_numpy(zero_copy_only=False)
        included[some] = ~(known & (index.splits[some] == _TRAIN))
    return included


def _families(name: str, index: SampleIndex) -> list[str]:
    """The names of a data set's families in the combined index."""
    return [name] if len(index.family_names) == 1 else [f"{name}/{family}" for family in index.family_names]


def _held_out_hashes(index: SampleIndex) -> pa.Array:
    """The content hashes of the val and test samples."""
    hashes = index.table.column("content_hash").chunk(0)
    return hashes.take(pa.array(np.flatnonzero(index.splits != _TRAIN)))


def _append_taxonomy(taxonomy: list[TaxonomyNode], name: str, index: SampleIndex) -> list[int]:
    """Appends a data set's nodes to `taxonomy`; returns the new number of each."""
    first = len(taxonomy)
    for node in index.taxonomy:
        root = node.parent < 0
        taxonomy.append(TaxonomyNode(name if root else node.name, 0 if root else first + node.parent))
    return list(range(first, len(taxonomy)))


def _map_numbers(values: NDArray[Any], numbers: list[int]) -> NDArray[Any]:
    """Each value replaced by its new number; -1 stays -1."""
    return np.array([*numbers, -1], dtype=values.dtype)[values]


def _scalar(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())
