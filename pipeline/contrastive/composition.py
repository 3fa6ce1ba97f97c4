"""Composing a batch: so many pairs of each node, none of which share content or caption.

    for each node, the smallest first:
        candidates = pairs below it in random order, balanced over its children (the root: not balanced)
        take the first that share no content and no caption with one another or with those taken
        too few: the rest from its parent, and so on up to the root
    the root has too few: take pairs that share content, but never a pair twice (counted as relaxed)

So a batch is always full and composing it always ends. Work grows with the batch, not with the data
set (measured on 2 cores in `tests/pipeline/contrastive`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contrastive.ontology import Ids, Ontology

_TRIES = 4
"""Rounds of random candidates before a large node counts as exhausted."""

_OVERDRAW = 4
"""Candidates drawn for each pair that is still needed."""


@dataclass(frozen=True)
class Composition:
    """A composed batch.

    Attributes:
        ids: int64 [G].
        topped_up: pairs that a node could not give and that came from above it.
        relaxed: pairs that share content or caption with another of the batch.
    """

    ids: Ids
    topped_up: int
    relaxed: int


def compose(ontology: Ontology, wanted: Mapping[int, int], rng: np.random.Generator) -> Composition:
    """A batch with `wanted[node]` pairs of each node, in an order that does not tell the node.

    Args:
        wanted: node -> pairs; their sum is G, at most the number of training pairs.
    """
    taken = np.zeros(0, np.int64)
    topped_up = relaxed = 0
    for node in sorted(wanted, key=lambda node: (len(ontology.below(node)), node)):
        missing = wanted[node]
        for place in [node, *ontology.ancestors(node)]:
            if place != node:
                topped_up += missing
            found = _distinct_from(ontology, place, missing, taken, rng)
            taken = np.concatenate([taken, found])
            missing -= len(found)
            if missing == 0:
                break
        if missing:
            relaxed += missing
            left = np.setdiff1d(ontology.postings, taken)
            taken = np.concatenate([taken, rng.choice(left, missing, replace=False)])
    return Composition(rng.permutation(taken), topped_up, relaxed)


def _distinct_from(ontology: Ontology, node: int, count: int, taken: Ids, rng: np.random.Generator) -> Ids:
    """Up to `count` pairs below a node that share nothing with one another or with those taken."""
    found = np.zeros(0, np.int64)
    size = len(ontology.below(node))
    if size <= max(256, 2 * _OVERDRAW * count):
        rounds = iter([_all_below(ontology, node, rng)])
    else:
        rounds = (_some_below(ontology, node, _OVERDRAW * (count - len(found)), rng) for _ in range(_TRIES))
    for candidates in rounds:
        fresh = _sharing_nothing(ontology, candidates, np.concatenate([taken, found]))
        found = np.concatenate([found, fresh[: count - len(found)]])
        if len(found) == count:
            break
    return found


def _sharing_nothing(ontology: Ontology, candidates: Ids, taken: Ids) -> Ids:
    """The candidates whose content and caption are new, and the first of their kind."""
    fresh = np.ones(len(candidates), bool)
    for kinds in (ontology.contents, ontology.captions):
        of_candidates = kinds[candidates]
        firsts = np.zeros(len(candidates), bool)
        firsts[np.unique(of_candidates, return_index=True)[1]] = True
        fresh &= firsts & ~np.isin(of_candidates, kinds[taken])
    return candidates[fresh]


def _parts(ontology: Ontology, node: int) -> NDArray[np.int64]:
    """Slices of the postings [parts, 2] over which a draw from a node is balanced: its children, and its own pairs."""
    start, own_end, end = ontology.spans[node, :3]
    children = ontology.nodes[node].children
    if node == 0 or not children:
        return np.array([[start, end]], np.int64)
    parts = ontology.spans[list(children)][:, [0, 2]]
    if own_end > start:
        parts = np.concatenate([[[start, own_end]], parts])
    return parts[parts[:, 1] > parts[:, 0]]


def _all_below(ontology: Ontology, node: int, rng: np.random.Generator) -> Ids:
    """All pairs below a node, shuffled, taking turns between its parts."""
    parts = _parts(ontology, node)
    lengths = parts[:, 1] - parts[:, 0]
    part_of = np.repeat(np.arange(len(parts)), lengths)
    shuffled = np.lexsort((rng.random(len(part_of)), part_of))
    turn = np.arange(len(part_of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    by_turn = shuffled[np.lexsort((rng.permutation(len(parts))[part_of], turn))]
    ids: Ids = np.asarray(ontology.below(node))[by_turn]
    return ids


def _some_below(ontology: Ontology, node: int, count: int, rng: np.random.Generator) -> Ids:
    """Random pairs below a node, with repetition, taking turns between its parts."""
    parts = _parts(ontology, node)
    part = rng.permutation(len(parts))[np.arange(count) % len(parts)]
    lengths = parts[part, 1] - parts[part, 0]
    places = parts[part, 0] + (rng.random(count) * lengths).astype(np.int64)
    ids: Ids = np.asarray(ontology.postings[places])
    return ids
