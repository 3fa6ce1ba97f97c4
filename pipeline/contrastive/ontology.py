"""Ontology: a tree of concepts and the samples below each, as a few arrays that can be memory-mapped.

Nodes are ordered parents before children; node 0 is the root. One array holds the training pairs in
depth-first order, so the pairs below any node are one slice of it. A node's own pairs (below it, but
below none of its children) come first in its slice. Memory is one number per pair at any depth of the
tree. The held-out pairs, which are never trained on, are stored in the same way.

Files: ontology.json (for people: nodes, counts, rule), postings.npy and held_out.npy (int64 sample ids),
spans.npy (int64 [nodes, 6]: start, end of own pairs, end of all pairs; first in postings, then in held_out),
contents.npy and captions.npy (int64 [samples]: equal numbers mean the same content, or the same first
caption).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import Artifact
from pipeline.json_file import write_json

SampleIds = NDArray[np.int64]
"""Ids of samples: their rows in the index."""


@dataclass(frozen=True)
class Node:
    """A concept; `parent` (-1 for the root) and `children` are node numbers, `path` starts below the root."""

    name: str
    path: str
    parent: int
    children: tuple[int, ...]
    depth: int


@dataclass(frozen=True)
class Ontology:
    """The tree and its samples.

    Attributes:
        nodes: parents before children; nodes[0] is the root.
        postings: ids of training pairs, depth first.
        held_out: ids of held-out pairs, depth first.
        spans: [nodes, 6], the columns of spans.npy.
        contents: [samples], equal for samples of the same content.
        captions: [samples], equal for samples with the same first caption.
    """

    nodes: tuple[Node, ...]
    postings: SampleIds
    held_out: SampleIds
    spans: NDArray[np.int64]
    contents: NDArray[np.int64]
    captions: NDArray[np.int64]

    @classmethod
    def open(cls, artifact: Artifact) -> Ontology:
        """The ontology that a build-ontology artifact holds; arrays are memory-mapped."""
        arrays = [
            np.load(artifact.path(f"{name}.npy"), mmap_mode="r")
            for name in ("postings", "held_out", "spans", "contents", "captions")
        ]
        entries = json.loads(artifact.read("ontology.json"))["nodes"]
        return cls(build_nodes([(entry["name"], entry["parent"]) for entry in entries]), *arrays)

    def write(self, folder: Path, rule: str) -> None:
        """Writes the files of the artifact; `rule` says in words how nodes were chosen."""
        for name in ("postings", "held_out", "spans", "contents", "captions"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        entries = [
            {
                "name": node.name,
                "path": node.path,
                "parent": node.parent,
                "training_pairs": len(self.below(number)),
                "training_contents": self.content_count(self.below(number)),
                "held_out_pairs": len(self.held_out_below(number)),
                "held_out_contents": self.content_count(self.held_out_below(number)),
            }
            for number, node in enumerate(self.nodes)
        ]
        write_json(folder / "ontology.json", {"rule": rule, "nodes": entries})

    def __len__(self) -> int:
        return len(self.nodes)

    def below(self, node: int) -> SampleIds:
        """Training pairs below a node."""
        start, _, end = self.spans[node, :3]
        return self.postings[start:end]

    def held_out_below(self, node: int) -> SampleIds:
        """Held-out pairs below a node."""
        start, _, end = self.spans[node, 3:]
        return self.held_out[start:end]

    def with_splits_swapped(self) -> Ontology:
        """The same tree with training pairs and held-out pairs exchanged."""
        spans = self.spans[:, [3, 4, 5, 0, 1, 2]]
        return replace(self, postings=self.held_out, held_out=self.postings, spans=spans)

    def content_count(self, ids: SampleIds) -> int:
        """Number of distinct contents among these samples."""
        return len(np.unique(self.contents[ids]))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the tree and its pairs; a curriculum's state is valid for one fingerprint only."""
        hasher = hashlib.sha256(json.dumps([node.path for node in self.nodes]).encode())
        for array in (self.spans, self.postings, self.held_out):
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()[:16]

    def ancestors(self, node: int) -> list[int]:
        """The parents of a node, nearest first, up to the root."""
        chain = []
        while (node := self.nodes[node].parent) >= 0:
            chain.append(node)
        return chain

    def descendants(self, node: int) -> list[int]:
        """All nodes below a node, parents before children."""
        nodes = list(self.nodes[node].children)
        for number in nodes:  # the list grows during the loop
            nodes.extend(self.nodes[number].children)
        return nodes


def build_nodes(entries: Sequence[tuple[str, int]]) -> tuple[Node, ...]:
    """Nodes from (name, parent) pairs, parents before children, the root first."""
    children: list[list[int]] = [[] for _ in entries]
    paths: list[str] = []
    depths: list[int] = []
    for number, (name, parent) in enumerate(entries):
        if parent >= 0:
            children[parent].append(number)
        paths.append(name if parent <= 0 else f"{paths[parent]}/{name}")
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return tuple(
        Node(name, path, parent, tuple(below), depth)
        for (name, parent), path, below, depth in zip(entries, paths, children, depths, strict=True)
    )


def sort_depth_first(
    nodes: Sequence[Node], node_of: NDArray[np.int64], ids: SampleIds
) -> tuple[SampleIds, NDArray[np.int64]]:
    """Sorts ids by node in depth-first order.

    Args:
        node_of: [len(ids)] the deepest node of each id.
        ids: sample ids; the order within a node does not change.
    Returns:
        The ids in the new order, and spans [nodes, 3]: start, end of own pairs, end of all pairs below.
    """
    order: list[int] = []
    stack = [0]
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(reversed(nodes[node].children))
    rank = np.empty(len(nodes), np.int64)
    rank[order] = np.arange(len(nodes))
    ordered = ids[np.argsort(rank[node_of], kind="stable")]
    counts = np.bincount(rank[node_of], minlength=len(nodes))
    starts = np.concatenate([[0], np.cumsum(counts)])
    size = np.ones(len(nodes), np.int64)
    for number in range(len(nodes) - 1, 0, -1):
        size[nodes[number].parent] += size[number]
    spans = np.stack([starts[rank], starts[rank + 1], starts[rank + size]], axis=1)
    return ordered, spans.astype(np.int64)
