"""Sentences about two models: the direction in words, the interval with its signs, and no claim without evidence."""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.difference import accuracy_difference, score_difference
from pipeline.evaluation.paired_test import mcnemar, paired_bootstrap


def outcomes(right: int, wrong: int) -> np.ndarray:
    return np.array([True] * right + [False] * wrong)


def test_direction_is_said_in_words_and_the_interval_has_its_signs() -> None:
    better, worse = outcomes(90, 10), outcomes(70, 30)
    said = accuracy_difference(mcnemar(better, worse), "B", "A")
    assert said == "B is 20.0 points more accurate than A (95% interval 11.7 to 27.5, p < 0.0001, on 100 images)"
    said = accuracy_difference(mcnemar(worse, better), "B", "A")
    signed = "difference \u221220.0, 95% interval \u221227.5 to \u221211.7"
    assert said == f"B is 20.0 points less accurate than A ({signed}, p < 0.0001, on 100 images)"


def test_nothing_is_claimed_without_evidence() -> None:
    said = accuracy_difference(mcnemar(outcomes(8, 2), outcomes(7, 3)), "B", "A")
    assert said.startswith("No difference can be shown: B is 10.0 points more accurate than A (95% interval \u2212")
    said = accuracy_difference(mcnemar(outcomes(7, 3), outcomes(7, 3)), "B", "A")
    assert said.startswith("No difference can be shown: B and A are equally accurate (")
    said = score_difference(paired_bootstrap([0.5, 1.0], [0.5, 1.0]), 2, "score", "B", "A")
    assert said == "No difference can be shown: B and A have the same score on each of 2 images"
    said = score_difference(paired_bootstrap([0.5, 0.0], [0.0, 0.5]), 2, "score", "B", "A")
    assert said.startswith("No difference can be shown: B and A have the same score (95% interval ")
