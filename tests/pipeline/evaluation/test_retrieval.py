"""Retrieval ranks against brute force, with several right answers in both directions."""

from __future__ import annotations

from itertools import permutations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from pipeline.evaluation.retrieval import (
    Positives,
    best_candidates,
    chance_recall_at,
    first_positive_ranks,
    recall_at,
    retrieval_metrics,
)


def test_text_of_two_concepts_is_right_for_both_and_an_image_has_several_texts() -> None:
    images = [[0], [0], [1], [2]]  # two drawings of concept 0
    texts = [[0], [0, 2], [1]]  # the second text is a caption of concepts 0 and 2
    to_texts = Positives.from_keys(images, texts)
    assert [to_texts.of(i).tolist() for i in range(4)] == [[0, 1], [0, 1], [2], [1]]
    to_images = Positives.from_keys(texts, images)
    assert [to_images.of(t).tolist() for t in range(3)] == [[0, 1], [0, 1, 3], [2]]


def test_rank_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[0.9, 0.0], [0.5, 0.0], [0.7, 0.0], [0.1, 0.0]])
    assert first_positive_ranks(query, candidates, Positives.from_keys([[7]], [[0], [7], [1], [7]])).tolist() == [3.0]
    assert first_positive_ranks(query, candidates, Positives.from_keys([[7]], [[7], [7], [1], [7]])).tolist() == [1.0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 12), st.integers(1, 15), st.integers(1, 40))
def test_ranks_equal_sorting_in_any_chunking(seed: int, queries: int, candidates: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    query_keys = [[int(k)] for k in rng.integers(0, 4, queries)]
    candidate_keys = [[int(k)] for k in rng.integers(0, 4, candidates)] + [[0], [1], [2], [3]]
    q = normalize(torch.from_numpy(rng.normal(size=(queries, 6))), dim=-1).float()
    c = normalize(torch.from_numpy(rng.normal(size=(candidates + 4, 6))), dim=-1).float()
    ranks = first_positive_ranks(q, c, Positives.from_keys(query_keys, candidate_keys), scores_at_once=at_once)
    scores = q.double() @ c.double().T
    for i, keys in enumerate(query_keys):
        order = scores[i].argsort(descending=True).tolist()
        expected = 1 + next(place for place, number in enumerate(order) if candidate_keys[number] == keys)
        assert ranks[i] == expected


@pytest.mark.parametrize(("right", "wrong"), [(1, 1), (1, 3), (2, 3), (3, 2)])
def test_ties_get_the_mean_rank_over_all_their_orders(right: int, wrong: int) -> None:
    candidates = torch.ones(right + wrong, 1)
    keys = [[1]] * right + [[0]] * wrong
    rank = first_positive_ranks(torch.ones(1, 1), candidates, Positives.from_keys([[1]], keys))[0]
    firsts = [1 + min(order.index(n) for n in range(right)) for order in permutations(range(right + wrong))]
    assert rank == pytest.approx(np.mean(firsts))


def test_collapsed_model_hits_nothing_and_ranks_in_the_middle() -> None:
    features = torch.ones(100, 4) / 2
    positives = Positives.from_keys([[i] for i in range(100)], [[i] for i in range(100)])
    ranks = first_positive_ranks(features, features, positives)
    assert recall_at(ranks, 10) == 0.0
    assert np.mean(ranks) == pytest.approx(50.5)


@given(st.integers(1, 12), st.data())
def test_chance_recall_equals_counting_subsets(candidates: int, data: st.DataObject) -> None:
    right = data.draw(st.lists(st.integers(1, candidates), min_size=1, max_size=5))
    k = data.draw(st.integers(1, 14))
    positives = Positives(np.concatenate([[0], np.cumsum(right)]), np.zeros(sum(right), dtype=np.int64))
    drawn = min(k, candidates)
    expected = np.mean([1 - comb(candidates - p, drawn) / comb(candidates, drawn) for p in right])
    assert chance_recall_at(positives, candidates, k) == pytest.approx(expected, abs=1e-12)


def test_random_features_score_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    q = normalize(torch.randn(2000, 32, generator=generator), dim=-1)
    c = normalize(torch.randn(150, 32, generator=generator), dim=-1)
    positives = Positives.from_keys([[i % 50] for i in range(2000)], [[i % 50] for i in range(150)])
    measured = retrieval_metrics("text_retrieval", first_positive_ranks(q, c, positives), positives, 150)
    for k in (1, 5, 10):
        assert measured[f"text_retrieval_recall@{k}"] == pytest.approx(measured[f"text_retrieval_chance@{k}"], abs=0.03)
    assert measured["text_retrieval_mean_rank"] == pytest.approx(151 / 4, rel=0.06)  # (N + 1) / (p + 1)
    assert measured["text_retrieval_queries"] == 2000


def test_best_candidates_are_sorted_and_no_more_than_there_are() -> None:
    numbers, scores = best_candidates(torch.tensor([[1.0]]), torch.tensor([[0.1], [0.9], [0.5]]), k=5)
    assert numbers.tolist() == [[1, 2, 0]]
    assert scores[0] == pytest.approx([0.9, 0.5, 0.1])


def test_queries_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(ValueError, match="query 1 has no right answer"):
        first_positive_ranks(torch.ones(2, 1), torch.ones(1, 1), Positives.from_keys([[0], [5]], [[0]]))
    with pytest.raises(ValueError, match="not finite"):
        first_positive_ranks(torch.full((1, 1), torch.nan), torch.ones(1, 1), Positives.from_keys([[0]], [[0]]))
    with pytest.raises(ValueError, match="2 queries"):
        first_positive_ranks(torch.ones(2, 1), torch.ones(1, 1), Positives.from_keys([[0]], [[0]]))
