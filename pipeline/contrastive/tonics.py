"""The TOnICS-style curriculum: it chooses the concepts of a batch's pairs, and advances with accuracy.

G is the number of pairs in a global batch; n is nodes_per_batch, R refresh_every_steps, tau threshold, m momentum
and p patience of the config. A content is a content group, or an image that is in none.

    STATE     P[node], sum 1, at first P[root] = 1; accuracy (running average) and streak of each node with
              P > 0 (the frontier); the opened nodes; version, the number of refreshes
    BATCH     n slots of G / n pairs; the node of each slot is drawn from P; of the n slots, a node gets n P[node],
              rounded up or down. A root slot draws pairs from all concepts; the slot of another node
              draws pairs of that node, balanced over its children; a batch has no duplicates (see composition)
    REFRESH   every R steps, with the accuracy a of each frontier node among held-out pairs:
              accuracy = m accuracy + (1 - m) a;  streak = refreshes in a row with accuracy >= tau
              streak >= p and the node has children: it is opened: (1 - floor) P moves to the children, in
                  proportion to (number of different training contents)^alpha; floor P remains with
                  the node, so that it is not forgotten
              opened, and accuracy < tau - retreat: it is closed, and P of all nodes below it returns to it

With n = 1 this is TOnICS (Srinivasan, Ren, Thomason 2022): in the end, whole batches of one concept. With
n > 1 a batch mixes n nodes with G / n pairs each; in our measurements this preserved the alignment between concepts
as well as within them (n = 8 with 8 pairs each beat n = 1 with 64). The accuracy of an opened node measures
how well its concepts are distinguished: opening tests one level, closing tests the level above it. The constants
are ours; we had no access to the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.config import Config
from pipeline.contrastive.composition import Composition, compose
from pipeline.contrastive.ontology import Ontology, SampleIds
from pipeline.counter_rng import generator
from pipeline.errors import InputError, WorkError

_RECOMPOSED_STEPS = 64
"""Maximum number of steps per refresh whose batches are composed again to count topped-up and relaxed pairs."""


class TonicsConfig(Config):
    """A curriculum over the ontology, after TOnICS: batches become more specific as accuracy grows."""

    kind: Literal["tonics"] = Field(
        "tonics", description="Curriculum: batches of ever more similar concepts, as accuracy grows."
    )
    nodes_per_batch: int = Field(
        8,
        ge=1,
        le=65536,
        description="Number of ontology nodes (concepts) drawn for a batch; each supplies global_batch / "
        "nodes_per_batch pairs. 1: as in TOnICS.",
    )
    refresh_every_steps: int = Field(
        500,
        ge=1,
        description="Number of steps between refreshes, at which accuracy is measured and nodes are opened or closed.",
    )
    threshold: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Held-out accuracy (0 to 1) from which a node is opened, i.e. its children are drawn too.",
    )
    momentum: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Momentum of the moving average of a node's accuracy, over refreshes. 0: only the latest.",
    )
    patience: int = Field(
        2, ge=1, description="Number of consecutive refreshes at or above the threshold before a node is opened."
    )
    floor: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Fraction of its sampling probability that an opened node retains, against forgetting; its "
        "children share the rest.",
    )
    alpha: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Children share probability in proportion to (number of distinct images)^alpha. 0: equally; "
        "1: by size.",
    )
    retreat: float | None = Field(
        0.15,
        gt=0,
        le=1,
        description="An opened node is closed again if its accuracy is this far below the threshold. null: never.",
    )
    held_out_batch: int = Field(
        16,
        ge=2,
        le=4096,
        description="Number of pairs in a held-out batch, i.e. of candidate texts when accuracy is measured.",
    )
    held_out_batches: int = Field(8, ge=1, le=1024, description="Number of held-out batches per node and refresh.")

    def build(self, ontology: Ontology, global_batch: int, seed: int) -> CurriculumPolicy:
        """The policy in its initial state.

        Raises:
            InputError: the global batch is smaller than `nodes_per_batch`, or larger than the ontology.
        """
        if self.nodes_per_batch > global_batch:
            raise InputError(
                f"nodes_per_batch={self.nodes_per_batch}: more than the global batch of {global_batch} pairs"
            )
        if len(ontology.postings) < global_batch:
            raise InputError(
                f"global_batch={global_batch}: more than the {len(ontology.postings)} training pairs of the ontology"
            )
        return CurriculumPolicy(self, ontology, global_batch, seed)


@dataclass(frozen=True)
class BatchStatistics:
    """Statistics of the batches of a range of steps.

    Attributes:
        hits: node -> number of pairs requested from it, over all steps.
        topped_up: fraction of pairs that an ancestor supplied because a node had too few.
        relaxed: fraction of pairs that share content or caption with another pair of their batch.
    """

    hits: dict[int, int]
    topped_up: float
    relaxed: float


class CurriculumPolicy:
    """The curriculum, a SamplingPolicy over an ontology; identical on every rank.

    Args:
        config: the constants of the curriculum.
        ontology: the concepts and pairs to draw from.
        global_batch: G.
        seed: random seed of all draws.
    """

    def __init__(self, config: TonicsConfig, ontology: Ontology, global_batch: int, seed: int) -> None:
        self.config = config
        self.ontology = ontology
        self.global_batch = global_batch
        self.seed = seed
        self.version = 0
        self.probability: dict[int, float] = {0: 1.0}
        self.accuracy: dict[int, float] = {}
        self.streak: dict[int, int] = {}
        self.opened: set[int] = set()

    @property
    def frontier(self) -> list[int]:
        """The nodes from which batches are drawn, ascending."""
        return sorted(self.probability)

    def batch(self, step: int) -> SampleIds:
        """Ids of the global batch of a step, int64 [G]."""
        return self.composition(step).ids

    def composition(self, step: int) -> Composition:
        """The batch of a step, with the number of pairs for which the rules were relaxed.

        Raises:
            WorkError: the step comes after a refresh that has not happened yet.
        """
        limit = self.ready_until()
        if limit is not None and step >= limit:
            raise WorkError(f"step {step}: its batch depends on the curriculum's refresh at step {limit}")
        return compose(self.ontology, self.node_pairs(step), generator(self.seed, "tonics-pairs", step, self.version))

    def node_pairs(self, step: int) -> dict[int, int]:
        """Node -> its number of pairs in the batch of a step; systematic sampling from P over the slots."""
        rng = generator(self.seed, "tonics-nodes", step, self.version)
        slots = self.config.nodes_per_batch
        nodes = rng.permutation(self.frontier)
        edges = np.cumsum([self.probability[int(node)] for node in nodes])
        points = (rng.random() + np.arange(slots)) / slots * edges[-1]
        chosen = nodes[np.minimum(np.searchsorted(edges, points, side="right"), len(nodes) - 1)]
        sizes = self.global_batch // slots + (np.arange(slots) < self.global_batch % slots)
        pairs = np.bincount(chosen, weights=sizes, minlength=1).astype(np.int64)
        return {int(node): int(pairs[node]) for node in np.flatnonzero(pairs)}

    def epoch(self, step: int) -> int:
        """The step itself: a pair may recur at any step, and must then be augmented differently."""
        return step

    def ready_until(self) -> int | None:
        """The step of the next refresh; None if the root has no children, so that there is nothing to open."""
        if not self.ontology.nodes[0].children:
            return None
        return (self.version + 1) * self.config.refresh_every_steps

    def refresh(self, measured: Mapping[int, float]) -> None:
        """Updates the frontier; to be called at step `ready_until()`, with equal numbers on every rank.

        Args:
            measured: accuracy of each frontier node among held-out pairs, in [0, 1].
        """
        config = self.config
        for node in self.frontier:
            before = self.accuracy.get(node, measured[node])
            self.accuracy[node] = config.momentum * before + (1 - config.momentum) * measured[node]
            self.streak[node] = self.streak.get(node, 0) + 1 if self.accuracy[node] >= config.threshold else 0
        for node in self.frontier:
            # A node whose ancestor was closed in this refresh has no probability any more.
            if node in self.probability and node in self.opened:
                if config.retreat is not None and self.accuracy[node] < config.threshold - config.retreat:
                    self._close(node)
            elif (
                node in self.probability and self.ontology.nodes[node].children and self.streak[node] >= config.patience
            ):
                self._open(node)
        self.version += 1

    def _open(self, node: int) -> None:
        children = self.ontology.nodes[node].children
        weights = (
            np.array([self.ontology.content_count(self.ontology.below(child)) for child in children])
            ** self.config.alpha
        )
        moved = (1 - self.config.floor) * self.probability[node]
        self.probability[node] -= moved
        for child, share in zip(children, weights / weights.sum(), strict=True):
            self.probability[child] = moved * float(share)
        self.opened.add(node)

    def _close(self, node: int) -> None:
        for below in self.ontology.descendants(node):
            self.probability[node] += self.probability.pop(below, 0.0)
            self.accuracy.pop(below, None)
            self.streak.pop(below, None)
            self.opened.discard(below)
        self.opened.discard(node)
        self.streak[node] = 0

    def batch_statistics(self, start: int, stop: int) -> BatchStatistics:
        """Statistics of the batches of the steps [start, stop); topped_up and relaxed are those of a sample of them."""
        hits: dict[int, int] = dict.fromkeys(self.frontier, 0)
        for step in range(start, stop):
            for node, pairs in self.node_pairs(step).items():
                hits[node] += pairs
        sampled = np.unique(np.linspace(start, stop - 1, min(_RECOMPOSED_STEPS, stop - start)).astype(np.int64))
        batches = [self.composition(int(step)) for step in sampled]
        pairs = self.global_batch * max(1, len(batches))
        return BatchStatistics(hits, sum(b.topped_up for b in batches) / pairs, sum(b.relaxed for b in batches) / pairs)

    def state(self) -> dict[str, Any]:
        """The state as JSON values, for `load_state`."""
        return {
            "ontology": self.ontology.fingerprint,
            "version": self.version,
            "mass": {str(node): value for node, value in self.probability.items()},
            "accuracy": {str(node): value for node, value in self.accuracy.items()},
            "streak": {str(node): value for node, value in self.streak.items()},
            "opened": sorted(self.opened),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores the state; raises WorkError if it belongs to another ontology."""
        if state["ontology"] != self.ontology.fingerprint:
            raise WorkError(
                "the checkpoint's curriculum is over another ontology; remove the checkpoint to start again"
            )
        self.version = int(state["version"])
        self.probability = {int(node): float(value) for node, value in state["mass"].items()}
        self.accuracy = {int(node): float(value) for node, value in state["accuracy"].items()}
        self.streak = {int(node): int(value) for node, value in state["streak"].items()}
        self.opened = set(state["opened"])
