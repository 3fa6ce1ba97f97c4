"""Measures: small cases by hand, any case against scikit-learn or plain counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from pipeline.evaluation.metrics import (
    balanced_accuracy,
    balanced_accuracy_interval,
    chance_accuracy,
    confusion_matrix,
    expected_calibration_error,
    label_ranks,
    macro_f1,
    majority_accuracy,
    per_class_accuracy,
    top_k_accuracy,
    wilson_interval,
)

ANSWERS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


def test_top_k_by_hand() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4]])
    labels = np.array([1, 1, 0])
    assert label_ranks(scores, labels).tolist() == [1, 2, 2]
    assert top_k_accuracy(scores, labels, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(scores, labels, 2) == 1.0


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_rank_one_is_exactly_what_argmax_answers(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (20, 5)).astype(np.float32)  # few levels: many ties
    labels = rng.integers(0, 5, 20)
    assert ((label_ranks(scores, labels) == 1) == (scores.argmax(axis=1) == labels)).all()


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_top_k_agrees_with_scikit_learn(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(30, 6)), rng.integers(0, 6, 30)
    expected = reference.top_k_accuracy_score(labels, scores, k=k, labels=range(6))
    assert top_k_accuracy(scores, labels, k) == pytest.approx(expected)


def test_model_that_returns_no_numbers_is_refused_rather_than_praised() -> None:
    with pytest.raises(ValueError, match="not numbers"):
        label_ranks(np.full((2, 3), np.nan), np.array([0, 1]))


@given(ANSWERS)
def test_confusion_and_what_follows_from_it_agree_with_scikit_learn(answers: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(answers).T
    confusion = confusion_matrix(labels, predicted, 5)
    assert (confusion == reference.confusion_matrix(labels, predicted, labels=range(5))).all()
    assert macro_f1(confusion) == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    recalls = [np.mean(predicted[labels == c] == c) for c in range(5) if (labels == c).any()]
    assert balanced_accuracy(confusion) == pytest.approx(np.mean(recalls))


def test_class_without_samples_has_no_accuracy_and_no_weight() -> None:
    confusion = confusion_matrix(np.array([0, 0, 2]), np.array([0, 2, 2]), 3)
    accuracies = per_class_accuracy(confusion)
    assert accuracies[[0, 2]].tolist() == [0.5, 1.0]
    assert np.isnan(accuracies[1])
    assert balanced_accuracy(confusion) == 0.75


def test_majority_is_the_training_splits_most_frequent_answer_on_the_evaluated_samples() -> None:
    train = np.array([2, 2, 2, 0, 0, 1, -1, -1, -1, -1])
    evaluated = np.array([0, 0, 0, 2])  # here 0 is the most frequent, but training does not show that
    assert majority_accuracy(train, evaluated) == 0.25
    assert majority_accuracy(train, evaluated, k=2) == 1.0
    assert chance_accuracy(51) == pytest.approx(1 / 51)
    assert chance_accuracy(3, k=5) == 1.0


def test_calibration_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.0])
    correct = np.array([True, False, True, False])
    # Ten bins: {0.95, 0.95} states 1.90 and reaches 1; {0.55} states 0.55, reaches 1; {0.0} is exact.
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx((0.9 + 0.45) / 4)


def test_honest_model_is_calibrated_and_a_boastful_one_is_not() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(20_000)
    honest = rng.random(20_000) < confidence
    assert expected_calibration_error(confidence, honest) < 0.02
    assert expected_calibration_error(np.ones(20_000), honest) == pytest.approx(1 - honest.mean())


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_are_where_the_score_test_just_accepts(case: tuple[int, int]) -> None:
    successes, samples = case
    low, high = wilson_interval(successes, samples)
    share = successes / samples
    assert 0.0 <= low <= share <= high <= 1.0
    for bound in (low, high):
        if 0.0 < bound < 1.0:
            z = (share - bound) / np.sqrt(bound * (1 - bound) / samples)
            assert abs(z) == pytest.approx(1.959964, rel=1e-5)


def test_balanced_accuracy_of_equal_classes_has_the_interval_of_the_accuracy() -> None:
    confusion = np.array([[6, 4], [1, 9]])
    assert balanced_accuracy_interval(confusion) == pytest.approx(wilson_interval(15, 20))


def test_balanced_accuracy_of_a_constant_prediction_has_an_interval_of_some_width() -> None:
    sizes = np.array([5, 20, 10, 0])
    confusion = np.zeros((4, 4), dtype=np.int64)
    confusion[:, 1] = sizes
    low, high = balanced_accuracy_interval(confusion)
    effective = 9 / (1 / 5 + 1 / 20 + 1 / 10)  # 25.7 of 35
    assert (low, high) == pytest.approx(wilson_interval(effective / 3, effective))
    assert (round(low, 3), round(high, 3)) == (0.184, 0.526)


def test_balanced_accuracy_of_many_small_classes_is_in_its_interval_as_often_as_stated() -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(2, 0.9, size=(500, 50))
    within = 0
    for row in right:
        confusion = np.diag(row) + np.roll(np.diag(2 - row), 1, axis=1)
        low, high = balanced_accuracy_interval(confusion)
        within += low <= 0.9 <= high
    assert 0.9 < within / 500 < 0.98  # Of the normal interval it is 0.82.


def test_measuring_nothing_is_refused() -> None:
    empty = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="no samples"):
        top_k_accuracy(np.zeros((0, 3)), empty)
    with pytest.raises(ValueError, match="no samples"):
        macro_f1(np.zeros((3, 3), dtype=np.int64))
    with pytest.raises(ValueError, match="no training labels"):
        majority_accuracy(np.array([-1]), np.array([0]))
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(0, 0)
