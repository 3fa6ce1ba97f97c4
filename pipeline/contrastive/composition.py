"""Composes a batch from a given number of pairs of each node, no two of which share content or caption.

    for each node, the smallest first:
        candidates = pairs below it in random order, balanced over its children (the root: not balanced)
        take the first ones that share no content and no caption with each other or with the batch so far
        too few: take the rest from its parent, and so on up to the root
    the root has too few: take pairs that share content, but never a pair twice (counted as relaxed)

A batch is therefore always full, and composing it always ends. The work grows with the batch, not with
the data set (measured on 2 cores in `tests/pipeline/contrastive`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contrastive.ontology import Ontology, SampleIds

_CANDIDATE_ROUNDS = 4
"""Rounds of random candidates after which a large node is considered exhausted."""

_OVERDRAW = 4
"""Random candidates drawn per missing pair."""


@dataclass(frozen=True)
class Composition:
    """A composed batch.

    Attributes:
        ids: int64 [G].
        topped_up: number of pairs that an ancestor supplied because a node had too few.
        relaxed: number of pairs that share content or caption with another pair of the batch.
    """

    ids: SampleIds
    topped_up: int
    relaxed: int


def compose(ontology: Ontology, wanted: Mapping[int, int], rng: np.random.Generator) -> Composition:
    """Composes a batch with `wanted[node]` pairs of each node, in random order.

    Args:
        wanted: node -> number of pairs; the sum is G, at most the number of training pairs.
    """
    selected = np.zeros(0, np.int64)
    topped_up = relaxed = 0
    for node in sorted(wanted, key=lambda node: (len(ontology.below(node)), node)):
        missing = wanted[node]
        for supplier in [node, *ontology.ancestors(node)]:
            if supplier != node:
                topped_up += missing
            ids = _distinct_from(ontology, supplier, missing, selected, rng)
            selected = np.concatenate([selected, ids])
            missing -= len(ids)
            if missing == 0:
                break
        if missing:
            relaxed += missing
            remaining = np.setdiff1d(ontology.postings, selected)
            selected = np.concatenate([selected, rng.choice(remaining, missing, replace=False)])
    return Composition(rng.permutation(selected), topped_up, relaxed)


def _distinct_from(
    ontology: Ontology, node: int, count: int, selected: SampleIds, rng: np.random.Generator
) -> SampleIds:
    """Up to `count` pairs below a node that share no content or caption with each other or with `selected`.

    Of a large node, random candidates are drawn in rounds, so that the work does not grow with the node.
    """
    chosen = np.zeros(0, np.int64)
    size = len(ontology.below(node))
    if size <= max(256, 2 * _OVERDRAW * count):
        rounds = iter([_all_below(ontology, node, rng)])
    else:
        rounds = (_some_below(ontology, node, _OVERDRAW * (count - len(chosen)), rng) for _ in range(_CANDIDATE_ROUNDS))
    for candidates in rounds:
        distinct = _without_shared_content(ontology, candidates, np.concatenate([selected, chosen]))
        chosen = np.concatenate([chosen, distinct[: count - len(chosen)]])
        if len(chosen) == count:
            break
    return chosen


def _without_shared_content(ontology: Ontology, candidates: SampleIds, selected: SampleIds) -> SampleIds:
    """The candidates that share no content or caption with `selected` or with an earlier candidate."""
    distinct = np.ones(len(candidates), bool)
    for numbers in (ontology.contents, ontology.captions):
        candidate_numbers = numbers[candidates]
        is_first = np.zeros(len(candidates), bool)
        is_first[np.unique(candidate_numbers, return_index=True)[1]] = True
        distinct &= is_first & ~np.isin(candidate_numbers, numbers[selected])
    return candidates[distinct]


def _branches(ontology: Ontology, node: int) -> NDArray[np.int64]:
    """The slices of `ontology.postings` over which a draw from a node is balanced, [n, 2] start and stop.

    One for each child, and one for the node's own pairs; for the root or a leaf, one for all pairs below it.
    """
    start, own_end, end = ontology.spans[node, :3]
    children = ontology.nodes[node].children
    if node == 0 or not children:
        return np.array([[start, end]], np.int64)
    branches = ontology.spans[list(children)][:, [0, 2]]
    if own_end > start:
        branches = np.concatenate([[[start, own_end]], branches])
    return branches[branches[:, 1] > branches[:, 0]]


def _all_below(ontology: Ontology, node: int, rng: np.random.Generator) -> SampleIds:
    """All pairs below a node, shuffled, alternating between its branches."""
    branches = _branches(ontology, node)
    lengths = branches[:, 1] - branches[:, 0]
    branch_of = np.repeat(np.arange(len(branches)), lengths)
    shuffled = np.lexsort((rng.random(len(branch_of)), branch_of))
    turn = np.arange(len(branch_of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    by_turn = shuffled[np.lexsort((rng.permutation(len(branches))[branch_of], turn))]
    ids: SampleIds = np.asarray(ontology.below(node))[by_turn]
    return ids


def _some_below(ontology: Ontology, node: int, count: int, rng: np.random.Generator) -> SampleIds:
    """Random pairs below a node, with repetition, alternating between its branches."""
    branches = _branches(ontology, node)
    branch = rng.permutation(len(branches))[np.arange(count) % len(branches)]
    lengths = branches[branch, 1] - branches[branch, 0]
    positions = branches[branch, 0] + (rng.random(count) * lengths).astype(np.int64)
    ids: SampleIds = np.asarray(ontology.postings[positions])
    return ids
