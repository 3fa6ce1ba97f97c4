"""The bootstrap's intervals contain the value, are as wide as theory says, and are the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.bootstrap import bootstrap_intervals
from pipeline.evaluation.metrics import expected_calibration_error, macro_f1


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    scores = np.random.default_rng(0).random(300)
    ((low, high),) = bootstrap_intervals(lambda rows: (scores[rows].mean(),), len(scores))
    assert (low + high) / 2 == pytest.approx(scores.mean())
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / np.sqrt(300), rel=0.1)


def test_a_calibration_error_is_in_its_interval_though_resampling_raises_it() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(200)
    correct = rng.random(200) < confidence

    def measure(rows: np.ndarray) -> tuple[float]:
        return (expected_calibration_error(confidence[rows], correct[rows]),)

    ((low, high),) = bootstrap_intervals(measure, 200)
    assert 0 <= low < measure(np.arange(200))[0] < high <= 1


def test_measures_share_their_resamples_and_bounds() -> None:
    scores = np.array([1.0, 1.0, 1.0, 0.0])
    first, second = bootstrap_intervals(lambda rows: (scores[rows].mean(), 1 - scores[rows].mean()), 4)
    assert first[1] == 1.0
    assert second[0] == 0.0
    assert second[1] == pytest.approx(1 - first[0])
    assert bootstrap_intervals(lambda rows: (scores[rows].mean(),), 4)[0] == pytest.approx(first)


def test_a_measure_that_no_resample_changes_has_no_interval() -> None:
    scores = np.full(30, 0.1)
    all_right = np.ones(30, dtype=bool)
    changing = np.arange(30) / 30

    def measure(rows: np.ndarray) -> tuple[float, ...]:
        perfect = macro_f1(np.diag([len(rows) - 1, 1]))
        return (
            perfect,
            expected_calibration_error(scores[rows], all_right[rows]),
            scores[rows].mean(),
            changing[rows].mean(),
        )

    f1, calibration, mean, other = bootstrap_intervals(measure, 30)
    assert (f1, calibration, mean) == (None, None, None)
    assert other is not None
