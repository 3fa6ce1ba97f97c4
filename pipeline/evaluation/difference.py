"""The result of a paired test in one sentence."""

from __future__ import annotations

from pipeline.counted import counted
from pipeline.evaluation.paired_test import BootstrapResult, McNemarResult

MAX_P_VALUE = 0.05
"""Above it, a sentence says that no difference can be shown."""


def p_value(p: float) -> str:
    """A p-value as text, e.g. "p = 0.031"; values below 0.0001 are not printed exactly."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def accuracy_difference(test: McNemarResult, first: str, second: str) -> str:
    """The difference of two accuracies, e.g. "B is 3.1 points more accurate than A (95% interval 1.0 to 5.2, ...)".

    Args:
        test: of `first` against `second`.
        first, second: their names.
    """
    difference, low, high = (_points(share) for share in (test.difference, test.low, test.high))
    evidence = f"({_interval(difference, low, high)}, {p_value(test.p_value)}, on {counted(test.samples, 'image')})"
    if test.difference == 0:
        return _finding(f"{first} and {second} are equally accurate {evidence}", shown=False)
    direction = "more" if test.difference > 0 else "less"
    sentence = f"{first} is {_points(abs(test.difference))} points {direction} accurate than {second} {evidence}"
    return _finding(sentence, shown=test.p_value <= MAX_P_VALUE)


def score_difference(test: BootstrapResult, samples: int, score: str, first: str, second: str) -> str:
    """The difference of two mean scores, e.g. "B's mean reciprocal rank is 0.031 higher than A's (...)".

    Args:
        test: of `first` against `second`.
        samples: number of images.
        score: name of the score, e.g. "mean reciprocal rank".
    """
    same = f"{first} and {second} have the same {score}"
    if test.low == test.difference == test.high == 0:
        return _finding(f"{same} on each of {counted(samples, 'image')}", shown=False)
    difference, low, high = (_signed(value, 3) for value in (test.difference, test.low, test.high))
    evidence = f"({_interval(difference, low, high)}, {p_value(test.p_value)}, on {counted(samples, 'image')})"
    if test.difference == 0:
        return _finding(f"{same} {evidence}", shown=False)
    direction = "higher" if test.difference > 0 else "lower"
    sentence = f"{first}'s {score} is {abs(test.difference):.3f} {direction} than {second}'s {evidence}"
    return _finding(sentence, shown=test.p_value <= MAX_P_VALUE)


def _finding(sentence: str, *, shown: bool) -> str:
    return sentence if shown else f"No difference can be shown: {sentence}"


def _interval(difference: str, low: str, high: str) -> str:
    """The interval; with the difference if its sign is in words only ("less accurate"), as the interval has signs."""
    interval = f"95% interval {low} to {high}"
    return f"difference {difference}, {interval}" if difference.startswith("\N{MINUS SIGN}") else interval


def _points(share: float) -> str:
    return _signed(100 * share, 1)


def _signed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")
