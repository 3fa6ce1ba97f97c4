"""The numbers of content groups, taxonomy nodes and families in an index; the same for the same data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.sharding.format.index import TaxonomyNode
from pipeline.sharding.writing.chunks import Columns, read_rows
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
    scratch: Scratch, columns: Columns, rows: NDArray[np.int64], root: str, labels: NDArray[np.int32]
) -> Numbering:
    """The numbering of the planned samples.

    Args:
        rows: the samples' rows of the columns, in the order of their ids.
        root: name of the taxonomy's root; "" for none.
        labels: number of each label, see `label_numbers`.
    """
    used = [columns.family_names[code] for code in np.unique(columns.family[rows])]
    number_of = {name: number for number, name in enumerate(sorted(used))}
    families = np.array([number_of.get(name, -1) for name in columns.family_names], dtype=np.int16)
    nodes, taxonomy = _nodes(root, columns.node_paths, used_nodes(columns, labels))
    return Numbering(_groups(scratch, columns, rows), nodes, families, tuple(sorted(used)), taxonomy, labels)


def used_nodes(columns: Columns, labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """[node_paths] whether the node has an image of a class that was not dropped."""
    used = np.zeros(len(columns.node_paths), dtype=np.bool_)
    used[
        columns.node if not (labels == DROPPED_CLASS).any() else columns.node[labels[columns.label] != DROPPED_CLASS]
    ] = True
    return used


def _nodes(
    root: str, paths: tuple[tuple[str, ...], ...], used: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], tuple[TaxonomyNode, ...]]:
    if not root:
        return np.full(len(paths), -1, dtype=np.int32), ()
    taxonomy = [TaxonomyNode(root, -1)]
    numbers: dict[tuple[str, ...], int] = {(): 0}
    for path in itertools.compress(paths, used):
        for depth in range(1, len(path) + 1):
            if path[:depth] not in numbers:
                numbers[path[:depth]] = len(taxonomy)
                taxonomy.append(TaxonomyNode(path[depth - 1], numbers[path[: depth - 1]]))
    return np.array([numbers.get(path, -1) if path else -1 for path in paths], dtype=np.int32), tuple(taxonomy)


def _groups(scratch: Scratch, columns: Columns, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    groups = np.empty(len(rows), dtype=np.int32)
    named = columns.has_named_group[rows] == 1
    hashes, first, hash_of_row = np.unique(columns.group_hash[rows[named]], return_index=True, return_inverse=True)
    rank = np.empty(len(hashes), dtype=np.int32)
    rank[pc.sort_indices(_names(scratch, columns, rows[named][first])).to_numpy()] = np.arange(len(hashes))
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


def _names(scratch: Scratch, columns: Columns, rows: NDArray[np.int64]) -> Any:
    """[rows] the names of the content groups of `rows`, which are one row per group."""
    if not len(rows):
        return pa.array([], pa.large_string())
    return read_rows(scratch, *columns.locate(rows), ["group"]).column("group").chunk(0)
