"""Accuracy of a model on the held-out pairs of a node, which decides when the curriculum advances.

A node is measured on K fixed batches of S held-out pairs that share neither content nor caption: an image
must find its text among S texts and a text its image, so chance is 1 / S at every node and one threshold
suits all nodes. If a node has fewer than S contents, its ancestors supply the rest.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from pipeline.contrastive.composition import compose
from pipeline.contrastive.losses import cosines
from pipeline.contrastive.ontology import Ontology, SampleIds
from pipeline.counter_rng import generator
from pipeline.errors import InputError


class HeldOutPairs:
    """The fixed held-out batches of every node.

    Args:
        ontology: the tree and its held-out pairs.
        size: S, pairs per batch.
        batches: K, batches per node.
        seed: random seed of the choice of pairs.
    Raises:
        InputError: there are fewer than S distinct held-out contents.
    """

    def __init__(self, ontology: Ontology, size: int, batches: int, seed: int) -> None:
        contents = ontology.content_count(ontology.held_out)
        if contents < size:
            raise InputError(
                f"held_out_batch={size}: only {contents} distinct contents are held out; reduce it, or hold out more "
                "(ontology.held_out_share, or the validation share of the split)"
            )
        self.size = size
        self._ontology = ontology.with_splits_swapped()
        self._batches = batches
        self._seed = seed
        self._composed: dict[int, SampleIds] = {}

    @property
    def chance(self) -> float:
        """The accuracy of random guessing."""
        return 1.0 / self.size

    def batches(self, node: int) -> SampleIds:
        """The ids of a node's batches, int64 [K, S]; the same at every call."""
        if node not in self._composed:
            rngs = [generator(self._seed, "held-out", node, number) for number in range(self._batches)]
            self._composed[node] = np.stack([compose(self._ontology, {node: self.size}, rng).ids for rng in rngs])
        return self._composed[node]

    def own_share(self, node: int) -> float:
        """The fraction of the pairs in a node's batches that are below the node, not supplied by an ancestor."""
        is_below = np.isin(self.batches(node), self._ontology.below(node))
        return float(is_below.mean())

    def ids(self, nodes: Iterable[int]) -> SampleIds:
        """The ids of all pairs in the batches of these nodes, ascending."""
        return np.unique(np.concatenate([self.batches(node).ravel() for node in nodes]))

    def accuracy(self, node: int, ids: SampleIds, image_features: Tensor, text_features: Tensor) -> float:
        """Mean of image-to-text and text-to-image R@1 over a node's batches.

        Args:
            ids: ascending, with all ids of the node's batches.
            image_features: [len(ids), E], unit vectors.
            text_features: [len(ids), E], unit vectors.
        """
        chosen = torch.from_numpy(np.searchsorted(ids, self.batches(node))).to(image_features.device)
        scores = cosines(image_features[chosen], text_features[chosen])
        positives = torch.from_numpy(self._positives(self.batches(node))).to(scores.device)
        image_hits = positives.gather(2, scores.argmax(2, keepdim=True))
        text_hits = positives.transpose(1, 2).gather(2, scores.transpose(1, 2).argmax(2, keepdim=True))
        return float((image_hits.double().mean() + text_hits.double().mean()) / 2)

    def _positives(self, batches: SampleIds) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which pairs of a batch are positives of each other, [K, S, S]: off the diagonal only in relaxed batches."""
        same = np.zeros((*batches.shape, batches.shape[1]), bool)
        for numbers in (self._ontology.contents, self._ontology.captions):
            pair_numbers = numbers[batches]
            same |= pair_numbers[:, :, None] == pair_numbers[:, None, :]
        return same
