"""The numbers of content groups, taxonomy nodes and families in an index; the same for the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.sharding.format.index import TaxonomyNode
from pipeline.sharding.format.taxonomy import NodePaths
from pipeline.sharding.writing.chunks import PlanColumns, read_rows
from pipeline.sharding.writing.rare_classes import DROPPED_CLASS
from pipeline.sharding.writing.scratch import Scratch


@dataclass(frozen=True, eq=False)
class Numbering:
    """The numbers of the planned samples.

    Attributes:
        groups: [samples] number of the content group: named groups first, sorted by name, then the others.
        nodes: [node_paths] number of each path's node; -1 without a taxonomy.
        families: [families of the columns] index of each into `family_names`, -1 if none of its samples is stored.
        family_names: sorted.
        taxonomy: the nodes, parents first.
        labels: [labels + 1] number of each label, see `label_numbers`.
    """

    groups: NDArray[np.int32]
    nodes: NDArray[np.int32]
    families: NDArray[np.int16]
    family_names: tuple[str, ...]
    taxonomy: tuple[TaxonomyNode, ...]
    labels: NDArray[np.int32]


def build_numbering(
    scratch: Scratch, columns: PlanColumns, rows: NDArray[np.int64], root: str, labels: NDArray[np.int32]
) -> Numbering:
    """The numbering of the planned samples.

    Args:
        rows: [samples] rows of the columns, in the order of the samples' ids.
        root: name of the taxonomy's root; "" for none.
        labels: number of each label, see `label_numbers`.
    """
    names = tuple(sorted(columns.family_names[code] for code in np.unique(columns.family[rows])))
    nodes, taxonomy = number_nodes(columns, labels, root)
    families = numbers_of(columns.family_names, names)
    return Numbering(_groups(scratch, columns, rows), nodes, families, names, taxonomy, labels)


def numbers_of(names: Sequence[str], ordered: Sequence[str]) -> NDArray[np.int16]:
    """[names] the position of each name in `ordered`; -1 for a name that is not there."""
    number_of = {name: number for number, name in enumerate(ordered)}
    return np.array([number_of.get(name, -1) for name in names], dtype=np.int16)


def number_nodes(
    columns: PlanColumns, labels: NDArray[np.int32], root: str, base: Sequence[TaxonomyNode] = ()
) -> tuple[NDArray[np.int32], tuple[TaxonomyNode, ...]]:
    """([node_paths] number of each path's node, the taxonomy).

    The number is -1 without a taxonomy, for the path (), and for a path whose images are all of dropped classes.

    Args:
        root: name of the taxonomy's root; "" for none.
        base: nodes that keep their numbers.
    """
    if not root and not base:
        return np.full(len(columns.node_paths), -1, dtype=np.int32), ()
    used = np.zeros(len(columns.node_paths), dtype=np.bool_)
    used[
        columns.node if not (labels == DROPPED_CLASS).any() else columns.node[labels[columns.label] != DROPPED_CLASS]
    ] = True
    paths = NodePaths(base)
    numbers = [
        paths.number(path) if path and is_used else -1
        for path, is_used in zip(columns.node_paths, used.tolist(), strict=True)
    ]
    return np.array(numbers, dtype=np.int32), paths.nodes(root)


def _groups(scratch: Scratch, columns: PlanColumns, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """[rows] see `Numbering.groups`."""
    groups = np.empty(len(rows), dtype=np.int32)
    named = columns.has_named_group[rows] == 1
    hashes, first, hash_of_row = np.unique(columns.group_hash[rows[named]], return_index=True, return_inverse=True)
    rank = np.empty(len(hashes), dtype=np.int32)
    rank[pc.sort_indices(_group_names(scratch, columns, rows[named][first])).to_numpy()] = np.arange(len(hashes))
    groups[named] = rank[hash_of_row]

    others = rows[~named]
    high, low = columns.hash_high[others], columns.hash_low[others]
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    new = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    numbers = np.empty(len(others), dtype=np.int32)
    numbers[order] = np.cumsum(np.append(False, new))[: len(others)]
    groups[~named] = numbers + len(hashes)
    return groups


def _group_names(scratch: Scratch, columns: PlanColumns, rows: NDArray[np.int64]) -> Any:
    """[rows] the names of the content groups of `rows`, which are one row per group."""
    if not len(rows):
        return pa.array([], pa.large_string())
    return read_rows(scratch, *columns.locate(rows), ["group"]).column("group").chunk(0)
