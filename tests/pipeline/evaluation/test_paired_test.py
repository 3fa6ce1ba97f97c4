"""Paired tests: re-derived by counting, and held to the error rate they promise."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.paired_test import binomial_two_sided, mcnemar, paired_bootstrap


def test_mcnemar_on_a_case_counted_by_hand() -> None:
    first = np.array([True] * 9 + [True] * 8 + [False] * 1 + [False] * 2)
    second = np.array([True] * 9 + [False] * 8 + [True] * 1 + [False] * 2)
    result = mcnemar(first, second)
    assert (result.only_first, result.only_second, result.samples) == (8, 1, 20)
    # Heads 0, 1, 8 or 9 times in 9 throws: (1 + 9 + 9 + 1) / 512.
    assert result.p_value == pytest.approx(20 / 512)
    assert result.difference == pytest.approx(7 / 20)
    assert result.low < 7 / 20 < result.high


@given(st.integers(0, 60), st.integers(0, 60))
def test_binomial_tail_equals_exact_counting(heads: int, tails: int) -> None:
    n = heads + tails
    away = abs(Fraction(heads) - Fraction(n, 2))
    extreme = sum(comb(n, k) for k in range(n + 1) if abs(Fraction(k) - Fraction(n, 2)) >= away)
    assert binomial_two_sided(heads, n) == pytest.approx(float(Fraction(extreme, 2**n)), rel=1e-9)


def test_binomial_tail_of_a_million_trials_is_finite_and_near_the_normal() -> None:
    from statistics import NormalDist

    trials, heads = 1_000_000, 498_500
    z = (trials / 2 - heads - 0.5) / (trials**0.5 / 2)
    assert binomial_two_sided(heads, trials) == pytest.approx(2 * (1 - NormalDist().cdf(z)), rel=1e-3)
    assert binomial_two_sided(trials // 2, trials) == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_swapping_the_models_only_turns_the_sign(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    forward, backward = mcnemar(first, second), mcnemar(second, first)
    assert forward.p_value == backward.p_value
    assert forward.difference == -backward.difference
    assert forward.low == pytest.approx(-backward.high)
    assert forward.low <= forward.high


def test_equal_models_give_no_evidence() -> None:
    right = np.array([True, False, True, True])
    result = mcnemar(right, right)
    assert result.p_value == 1.0
    assert result.difference == 0.0
    assert result.low < 0.0 < result.high


def test_equally_good_models_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(5)
    p_values = []
    for _ in range(400):
        outcomes = rng.random((2, 150)) < 0.7
        p_values.append(mcnemar(outcomes[0], outcomes[1]).p_value)
    # The exact test errs on the careful side: at most 5%, plus three standard errors of 400 trials.
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(500):
        cell = rng.choice(4, size=200, p=[0.5, 0.2, 0.1, 0.2])  # both, only first, only second, none
        result = mcnemar(cell <= 1, (cell == 0) | (cell == 2))
        covered += result.low <= 0.1 <= result.high
    assert 0.92 <= covered / 500 <= 0.98


@pytest.mark.parametrize("test", [mcnemar, paired_bootstrap])
def test_samples_that_cannot_be_paired_are_refused(test: object) -> None:
    assert callable(test)
    with pytest.raises(ValueError, match="3 and 2 samples cannot be paired"):
        test(np.array([True, False, True]), np.array([True, False]))
    with pytest.raises(ValueError, match="no samples"):
        test(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool))
    with pytest.raises(ValueError, match="confidence"):
        test(np.array([True]), np.array([True]), confidence=1.0)


def test_values_that_are_not_outcomes_are_refused() -> None:
    with pytest.raises(ValueError, match="booleans"):
        mcnemar([0.3, 0.9], [0.1, 0.2])
    with pytest.raises(ValueError, match="finite"):
        paired_bootstrap([0.3, np.nan], [0.1, 0.2])
    with pytest.raises(ValueError, match="shapes"):
        mcnemar(np.ones((2, 2), bool), np.ones((2, 2), bool))


def test_bootstrap_is_the_same_every_time_and_other_with_another_seed() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(50), rng.random(50)
    assert paired_bootstrap(first, second, seed=3) == paired_bootstrap(first, second, seed=3)
    assert paired_bootstrap(first, second, seed=3) != paired_bootstrap(first, second, seed=4)


def test_bootstrap_interval_has_the_width_of_the_standard_error() -> None:
    rng = np.random.default_rng(1)
    second = rng.random(400)
    first = second + rng.normal(0.05, 0.3, 400)
    result = paired_bootstrap(first, second)
    standard_error = float(np.std(first - second) / np.sqrt(400))
    assert result.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert result.high - result.low == pytest.approx(2 * 1.96 * standard_error, rel=0.05)


def test_bootstrap_sees_a_clear_difference_and_none_where_there_is_none() -> None:
    scores = np.linspace(0.0, 1.0, 60)
    better = paired_bootstrap(scores + 0.1, scores, resamples=1000)
    assert better.p_value == pytest.approx(2 / 1001)
    assert better.low == pytest.approx(0.1)
    assert paired_bootstrap(scores, scores, resamples=1000).p_value == 1.0


@settings(max_examples=20)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.integers(1, 700))
def test_bootstrap_keeps_its_bounds_in_order(scores: list[float], resamples: int) -> None:
    result = paired_bootstrap(scores, np.zeros(len(scores)), resamples=resamples)
    assert min(scores) - 1e-9 <= result.low <= result.high <= max(scores) + 1e-9
    assert 0.0 < result.p_value <= 1.0
