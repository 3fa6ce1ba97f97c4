"""The accuracy on held-out pairs, by which the curriculum advances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.contrastive.held_out import HeldOutPairs
from pipeline.contrastive.ontology import Ontology
from pipeline.errors import InputError

OntologyBuilder = Callable[..., Ontology]


def test_batches_come_from_the_node_are_fixed_and_are_never_trained_on(build_small_ontology: OntologyBuilder) -> None:
    ontology = build_small_ontology()
    held_out = HeldOutPairs(ontology, size=8, batches=5, seed=3)
    for node in range(len(ontology)):
        batches = held_out.batches(node)
        assert batches.shape == (5, 8)
        assert set(batches.ravel()) <= set(ontology.held_out_below(node))
        assert not set(batches.ravel()) & set(ontology.postings)
        assert all(len(np.unique(ontology.contents[batch])) == 8 for batch in batches)
        assert np.array_equal(batches, HeldOutPairs(ontology, size=8, batches=5, seed=3).batches(node))
        assert held_out.own_share(node) == 1.0


def test_a_node_with_few_held_out_contents_is_topped_up_to_the_fixed_size(
    build_small_ontology: OntologyBuilder,
) -> None:
    held_out = HeldOutPairs(build_small_ontology(), size=16, batches=2, seed=0)
    assert held_out.batches(3).shape == (2, 16)
    assert held_out.own_share(3) == 12 / 16


def test_perfect_features_score_one_and_random_ones_near_chance(build_small_ontology: OntologyBuilder) -> None:
    ontology = build_small_ontology()
    held_out = HeldOutPairs(ontology, size=8, batches=200, seed=0)
    ids = held_out.ids([0, 3])
    features = F.normalize(torch.randn(len(ids), 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    other = F.normalize(torch.randn(len(ids), 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    assert held_out.accuracy(0, ids, features, features) == 1.0
    assert held_out.accuracy(0, ids, features, other) == pytest.approx(held_out.chance, abs=0.05)
    constant = torch.ones_like(features)
    assert held_out.accuracy(3, ids, constant, constant) == pytest.approx(held_out.chance)


def test_too_few_held_out_pairs_are_refused(build_small_ontology: OntologyBuilder) -> None:
    with pytest.raises(InputError, match="held_out_batch=8: only 0 distinct contents are held out"):
        HeldOutPairs(build_small_ontology(held_out=False), size=8, batches=1, seed=0)
