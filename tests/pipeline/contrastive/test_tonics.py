"""The curriculum: the contents of its batches, its refreshes, and the restoring of its state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contrastive.composition import compose
from pipeline.contrastive.ontology import Ontology, build_nodes, sort_depth_first
from pipeline.contrastive.tonics import CurriculumPolicy, TonicsConfig
from pipeline.errors import InputError, WorkError
from pipeline.loading.policies.base import SamplingPolicy

OntologyBuilder = Callable[..., Ontology]


def policy(ontology: Ontology, global_batch: int = 24, seed: int = 0, **constants: float | None) -> CurriculumPolicy:
    defaults = {"nodes_per_batch": 4, "refresh_every_steps": 10, "patience": 1, "momentum": 0.0}
    return TonicsConfig(**{**defaults, **constants}).build(ontology, global_batch, seed)


def all_nodes(curriculum: CurriculumPolicy, accuracy: float) -> dict[int, float]:
    return dict.fromkeys(curriculum.frontier, accuracy)


def shares_nothing(ontology: Ontology, ids: np.ndarray) -> bool:
    return all(len(np.unique(numbers[ids])) == len(ids) for numbers in (ontology.contents, ontology.captions))


def test_it_is_a_sampling_policy(build_small_ontology: OntologyBuilder) -> None:
    curriculum: SamplingPolicy = policy(build_small_ontology())
    assert curriculum.batch(0).dtype == np.int64


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1), step=st.integers(0, 9), slots=st.integers(1, 30), global_batch=st.integers(30, 72)
)
def test_root_batches_repeat_no_content_and_no_caption(
    build_small_ontology: OntologyBuilder, seed: int, step: int, slots: int, global_batch: int
) -> None:
    ontology = build_small_ontology()
    ids = policy(ontology, global_batch, seed, nodes_per_batch=slots).batch(step)
    assert len(ids) == global_batch
    assert shares_nothing(ontology, ids)


@settings(max_examples=40, deadline=None)
@given(node=st.integers(0, 8), count=st.integers(1, 12), seed=st.integers(0, 2**31 - 1))
def test_a_node_with_enough_pairs_supplies_only_its_own(
    build_small_ontology: OntologyBuilder, node: int, count: int, seed: int
) -> None:
    ontology = build_small_ontology()
    composed = compose(ontology, {node: count}, np.random.default_rng(seed))
    assert set(composed.ids) <= set(ontology.below(node))
    assert shares_nothing(ontology, composed.ids)
    assert (composed.topped_up, composed.relaxed) == (0, 0)


def test_an_inner_node_is_balanced_over_its_children(build_small_ontology: OntologyBuilder) -> None:
    ontology = build_small_ontology(leaves=4)
    leaf_of = {int(id): leaf for leaf in range(3, len(ontology)) for id in ontology.below(leaf)}
    for seed in range(20):
        ids = compose(ontology, {1: 8}, np.random.default_rng(seed)).ids
        leaves = np.unique([leaf_of[int(id)] for id in ids], return_counts=True)[1]
        # Two candidates can have the same content, so a leaf can be off by one or two.
        assert len(leaves) == 4
        assert leaves.max() <= 4


def test_a_small_node_is_topped_up_from_its_ancestors(build_small_ontology: OntologyBuilder) -> None:
    ontology = build_small_ontology()
    composed = compose(ontology, {3: 20}, np.random.default_rng(0))
    from_leaf = np.isin(composed.ids, ontology.below(3)).sum()
    assert from_leaf == 12
    assert np.isin(composed.ids, ontology.below(1)).all()
    assert composed.topped_up == 8
    assert shares_nothing(ontology, composed.ids)


def test_a_batch_of_more_pairs_than_contents_counts_the_relaxed_pairs(build_small_ontology: OntologyBuilder) -> None:
    ontology = build_small_ontology()
    composed = compose(ontology, {0: 100}, np.random.default_rng(0))
    assert len(np.unique(composed.ids)) == 100
    assert composed.relaxed == 100 - 72


def test_pairs_per_node_match_the_probabilities_within_a_slot(build_small_ontology: OntologyBuilder) -> None:
    curriculum = policy(build_small_ontology(), global_batch=40, nodes_per_batch=10)
    curriculum.refresh(all_nodes(curriculum, 1.0))
    for step in range(10, 20):
        pairs = curriculum.node_pairs(step)
        assert sum(pairs.values()) == 40
        for node, mass in curriculum.probability.items():
            assert abs(pairs.get(node, 0) - 40 * mass) < 4 + 1e-9


def test_one_node_per_batch_is_the_leaf_batch_of_tonics(build_small_ontology: OntologyBuilder) -> None:
    ontology = build_small_ontology()
    curriculum = policy(ontology, global_batch=8, nodes_per_batch=1)
    for _ in range(2):
        curriculum.refresh(all_nodes(curriculum, 1.0))
    pure = [
        set(ids) <= set(ontology.below(leaf))
        for ids in (curriculum.batch(step) for step in range(20, 30))
        for leaf in range(3, 9)
    ]
    assert sum(pure) >= 6


def test_opening_moves_mass_to_the_children_but_for_the_floor(build_small_ontology: OntologyBuilder) -> None:
    curriculum = policy(build_small_ontology(), floor=0.2, patience=2)
    curriculum.refresh({0: 0.95})
    assert curriculum.probability == {0: 1.0}
    curriculum.refresh({0: 0.95})
    assert curriculum.probability == pytest.approx({0: 0.2, 1: 0.4, 2: 0.4})
    curriculum.refresh({0: 0.95, 1: 0.95, 2: 0.1})
    curriculum.refresh({0: 0.95, 1: 0.95, 2: 0.1})
    assert curriculum.probability[1] == pytest.approx(0.4 * 0.2)
    assert curriculum.probability[0] == pytest.approx(0.2)
    assert curriculum.frontier == [0, 1, 2, 3, 4, 5]


def test_accuracy_is_averaged_and_one_low_average_resets_the_streak(build_small_ontology: OntologyBuilder) -> None:
    curriculum = policy(build_small_ontology(), momentum=0.5, patience=2, threshold=0.8)
    for accuracy, averaged, streak in ((0.9, 0.9, 1), (0.5, 0.7, 0), (1.0, 0.85, 1)):
        curriculum.refresh({0: accuracy})
        assert curriculum.accuracy[0] == pytest.approx(averaged)
        assert curriculum.streak[0] == streak
    assert curriculum.probability == {0: 1.0}


def test_an_opened_node_whose_accuracy_falls_is_closed_again(build_small_ontology: OntologyBuilder) -> None:
    curriculum = policy(build_small_ontology(), threshold=0.8, retreat=0.2)
    curriculum.refresh(all_nodes(curriculum, 0.9))
    curriculum.refresh(all_nodes(curriculum, 0.9))
    assert len(curriculum.frontier) == 9
    curriculum.refresh(all_nodes(curriculum, 0.9) | {0: 0.65})
    assert len(curriculum.frontier) == 9
    curriculum.refresh(all_nodes(curriculum, 0.9) | {0: 0.55})
    assert curriculum.probability == pytest.approx({0: 1.0})
    without_retreat = policy(build_small_ontology(), threshold=0.8, retreat=None)
    without_retreat.refresh({0: 0.9})
    without_retreat.refresh({0: 0.0, 1: 0.0, 2: 0.0})
    assert without_retreat.frontier == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    accuracies=st.lists(st.lists(st.floats(0, 1), min_size=9, max_size=9), max_size=12),
    floor=st.floats(0.01, 0.9),
    alpha=st.floats(0, 1),
)
def test_probabilities_sum_to_one_and_no_opened_node_falls_to_zero(
    build_small_ontology: OntologyBuilder, accuracies: list[list[float]], floor: float, alpha: float
) -> None:
    curriculum = policy(build_small_ontology(), floor=floor, alpha=alpha, threshold=0.5, retreat=0.2)
    for measured in accuracies:
        curriculum.refresh({node: measured[node] for node in curriculum.frontier})
        assert sum(curriculum.probability.values()) == pytest.approx(1.0)
        assert curriculum.probability[0] >= floor - 1e-12
        assert min(curriculum.probability.values()) > 0
        assert set(curriculum.opened) <= set(curriculum.probability)
        for node in curriculum.frontier:
            assert all(ancestor in curriculum.opened for ancestor in curriculum.ontology.ancestors(node))
        restored = policy(build_small_ontology(), floor=floor, alpha=alpha, threshold=0.5, retreat=0.2)
        restored.load_state(json.loads(json.dumps(curriculum.state())))
        assert restored.state() == curriculum.state()
        step = curriculum.version * 10
        assert restored.batch(step).tolist() == curriculum.batch(step).tolist()


def test_no_batch_is_drawn_beyond_the_next_refresh(build_small_ontology: OntologyBuilder) -> None:
    curriculum = policy(build_small_ontology())
    assert curriculum.ready_until() == 10
    curriculum.batch(9)
    with pytest.raises(WorkError, match="refresh at step 10"):
        curriculum.batch(10)
    curriculum.refresh({0: 0.0})
    assert curriculum.ready_until() == 20
    curriculum.batch(10)


def test_an_ontology_without_concepts_waits_for_no_refresh(build_small_ontology: OntologyBuilder) -> None:
    curriculum = policy(build_small_ontology(needed=1000))
    assert curriculum.ready_until() is None
    assert len(curriculum.batch(10**6)) == 24


def test_every_rank_and_every_run_draws_the_same_batches(build_small_ontology: OntologyBuilder) -> None:
    first, second = policy(build_small_ontology()), policy(build_small_ontology())
    for step in (9, 0, 5):
        assert first.batch(step).tolist() == second.batch(step).tolist()
    assert first.batch(0).tolist() != first.batch(1).tolist()
    assert first.batch(0).tolist() != policy(build_small_ontology(), seed=1).batch(0).tolist()


def test_the_state_of_another_ontology_is_refused(build_small_ontology: OntologyBuilder) -> None:
    with pytest.raises(WorkError, match="another ontology"):
        policy(build_small_ontology(leaves=4)).load_state(policy(build_small_ontology()).state())


def test_impossible_batches_are_refused(build_small_ontology: OntologyBuilder) -> None:
    with pytest.raises(InputError, match="nodes_per_batch=25"):
        policy(build_small_ontology(), nodes_per_batch=25)
    with pytest.raises(InputError, match="more than the 144 training pairs"):
        policy(build_small_ontology(), global_batch=145)


def test_statistics_count_the_drawn_pairs(build_small_ontology: OntologyBuilder) -> None:
    curriculum = policy(build_small_ontology())
    drawn = curriculum.batch_statistics(0, 10)
    assert drawn.hits == {0: 240}
    assert (drawn.topped_up, drawn.relaxed) == (0, 0)


def seconds_per_batch(pairs: int) -> float:
    """The fastest of ten batches of 256 pairs from 8 of 64 nodes, each checked for duplicates."""
    leaves = 64
    nodes = build_nodes([("all", -1)] + [(f"n{n}", 0) for n in range(leaves)])
    ids = np.arange(pairs, dtype=np.int64)
    postings, spans = sort_depth_first(nodes, 1 + ids % leaves, ids)
    ontology = Ontology(nodes, postings, ids[:0], np.concatenate([spans, 0 * spans], axis=1), ids // 4, ids // 3)
    curriculum = policy(ontology, global_batch=256, nodes_per_batch=8)
    curriculum.refresh({0: 1.0})
    curriculum.batch(10)
    seconds = []
    for step in range(10, 20):
        started = time.perf_counter()
        ids = curriculum.batch(step)
        seconds.append(time.perf_counter() - started)
        assert shares_nothing(ontology, ids)
    return min(seconds)


def test_drawing_a_batch_takes_no_longer_from_a_hundred_times_as_many_pairs() -> None:
    few, many = seconds_per_batch(20_000), seconds_per_batch(2_000_000)
    print(f"{1000 * few:.2f} and {1000 * many:.2f} ms")
    assert many < 5 * few
