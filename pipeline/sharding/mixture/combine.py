"""Several indexes as one, whose rows are those of the first, then those of the second, and so on.

labels      equal names are one label; new ones follow in the order of the data sets
keys        NAME/KEY, so that no two samples have one
sources     NAME/SOURCE, or NAME where a data set has one source: measures by source are measures by data set
groups      kept apart: samples of two data sets never share one
taxonomy    one tree, whose root has the root of each data set below it, under the data set's name
splits      as they are; but a training image that another data set holds out is no training image of the whole
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.sharding.data_sets import DataSet
from pipeline.sharding.index import SCHEMA, SPLITS, SampleIndex, TaxonomyNode

_TRAIN = SPLITS.index("train")
_ROOT = "all"


@dataclass(frozen=True)
class Combined:
    """The whole, and what it lacks.

    Attributes:
        left_out: name -> training samples whose image is held out in a data set.
    """

    index: SampleIndex
    left_out: dict[str, int]


def combine(indexes: Mapping[str, SampleIndex], shard_names: Mapping[str, list[str]]) -> Combined:
    """One index of several.

    Args:
        indexes: name of the data set -> its index.
        shard_names: name of the data set -> how its shards are called in the whole.
    Raises:
        InputError: there are too many sources for an index.
    """
    labels = list(dict.fromkeys(label for index in indexes.values() for label in index.label_names))
    sources = sorted({new for name, index in indexes.items() for new in _sources(name, index)})
    if len(sources) > np.iinfo(np.int16).max:
        raise InputError(f"mixture: {len(sources):,} sources in all; an index holds {np.iinfo(np.int16).max:,}")
    held_out = pa.concat_arrays([_held_out_hashes(index) for index in indexes.values()])
    taxonomy = [TaxonomyNode(_ROOT, -1)] if any(index.taxonomy for index in indexes.values()) else []
    parts: list[pa.Table] = []
    data_sets: list[DataSet] = []
    left_out: dict[str, int] = {}
    names: list[str] = []
    first = first_group = 0
    for name, index in indexes.items():
        values: dict[str, pa.Array] = {
            "key": pc.binary_join_element_wise(pa.scalar(name, pa.large_string()), index.keys, _scalar("/")),
            "shard": pa.array(np.asarray(index.shards) + np.int32(len(names))),
            "label": pa.array(_renumbered(index.labels, [labels.index(label) for label in index.label_names])),
            "group": pa.array(np.where(index.groups < 0, -1, index.groups + np.int32(first_group)).astype(np.int32)),
            "node": pa.array(_renumbered(index.nodes, _grafted(taxonomy, name, index))),
            "source": pa.DictionaryArray.from_arrays(
                pa.array(_renumbered(index.source_codes, [sources.index(new) for new in _sources(name, index)])),
                pa.array(sources, pa.string()),
            ),
        }
        columns = [values.get(field.name, index.table.column(field.name)) for field in SCHEMA]
        part = pa.Table.from_arrays(columns, schema=SCHEMA)
        leaks = pc.and_(pc.equal(part.column("split"), _TRAIN), pc.is_in(part.column("content_hash"), held_out))
        part = part.filter(pc.invert(leaks))
        left_out[name] = len(index) - len(part)
        names += shard_names[name]
        parts.append(part)
        data_sets.append(DataSet(name, first, first + len(part)))
        first += len(part)
        first_group += int(index.groups.max(initial=-1)) + 1
    whole = SampleIndex.assemble(parts, shard_names=names, label_names=labels, taxonomy=taxonomy, data_sets=data_sets)
    return Combined(whole, left_out)


def _sources(name: str, index: SampleIndex) -> list[str]:
    """What the sources of a data set are called in the whole."""
    return [name] if len(index.source_names) == 1 else [f"{name}/{source}" for source in index.source_names]


def _held_out_hashes(index: SampleIndex) -> pa.Array:
    """The content hashes of the samples that are held out."""
    hashes = index.table.column("content_hash").chunk(0)
    return hashes.take(pa.array(np.flatnonzero(index.splits != _TRAIN)))


def _grafted(taxonomy: list[TaxonomyNode], name: str, index: SampleIndex) -> list[int]:
    """Adds a data set's nodes to the whole tree; gives the new number of each."""
    before = len(taxonomy)
    for node in index.taxonomy:
        root = node.parent < 0
        taxonomy.append(TaxonomyNode(name if root else node.name, 0 if root else before + node.parent))
    return list(range(before, len(taxonomy)))


def _renumbered(values: NDArray[Any], numbers: list[int]) -> NDArray[Any]:
    """Each value replaced by its new number; -1 stays."""
    return np.array([*numbers, -1], dtype=values.dtype)[values]


def _scalar(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())
