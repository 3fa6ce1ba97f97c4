"""The measures of two models on the same samples, each with its 95% interval.

The interval of a fraction of the samples and of the balanced accuracy is Wilson's; the others are by the bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.bootstrap import bootstrap_intervals
from pipeline.evaluation.metrics import (
    balanced_accuracy,
    balanced_accuracy_interval,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    wilson_interval,
)

Interval = tuple[float, float]

SCORE = "mean reciprocal rank of retrieval"


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of both models on the common samples.

    Attributes:
        a_interval, b_interval: 95% intervals; None: the samples do not show one (see `bootstrap_intervals`).
    """

    name: str
    a: float
    b: float
    a_interval: Interval | None
    b_interval: Interval | None

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.b - self.a


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers on N samples; classes are numbered alike for both models.

    Attributes:
        labels, predicted: [N] class numbers.
        correct: [N] whether the answer is right.
        confidence: [N] its probability.
        ranks: [N] rank of the true class among the classes that the model has.
        num_classes: of both models together.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    correct: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    ranks: NDArray[np.int64]
    num_classes: int

    def confusion(self, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.int64]:
        """[K, K] the confusion matrix of some of the samples; default: of all."""
        return confusion_matrix(self.labels[rows], self.predicted[rows], self.num_classes)

    def bootstrapped(self, rows: NDArray[np.int64]) -> tuple[float, float]:
        """Macro F1 and calibration error on some of the samples."""
        calibration = expected_calibration_error(self.confidence[rows], self.correct[rows])
        return macro_f1(self.confusion(rows)), calibration


def classifier_measures(a: Answers, b: Answers, *, top_5: bool) -> list[Measure]:
    """Accuracy, balanced accuracy, macro F1, top-5 accuracy and calibration error.

    Args:
        top_5: whether top-5 accuracy says something: both models have more than five classes.
    """
    rows = np.arange(len(a.labels))
    values = zip(a.bootstrapped(rows), b.bootstrapped(rows), strict=True)
    intervals = zip(*(bootstrap_intervals(answers.bootstrapped, len(rows)) for answers in (a, b)), strict=True)
    f1, calibration = (
        Measure(name, *value, *interval)
        for name, value, interval in zip(("macro F1", "calibration error"), values, intervals, strict=True)
    )
    first, second = a.confusion(), b.confusion()
    balanced = Measure(
        "balanced accuracy",
        balanced_accuracy(first),
        balanced_accuracy(second),
        balanced_accuracy_interval(first),
        balanced_accuracy_interval(second),
    )
    measures = [_fraction("accuracy", a.correct, b.correct), balanced, f1]
    if top_5:
        measures.append(_fraction("top-5 accuracy", a.ranks <= 5, b.ranks <= 5))
    return [*measures, calibration]


def score_measure(a: NDArray[np.float64], b: NDArray[np.float64]) -> Measure:
    """The mean of the reciprocal ranks, [N] each."""
    intervals = (bootstrap_intervals(partial(_mean, scores), len(scores))[0] for scores in (a, b))
    return Measure(SCORE, float(a.mean()), float(b.mean()), *intervals)


def recall_measures(a: Mapping[str, float], b: Mapping[str, float]) -> Iterator[Measure]:
    """The recalls that two retrieval evaluations have in common.

    Args:
        a, b: the metrics of the evaluations.
    """
    for name in a:
        direction, is_recall, _ = name.partition("_recall@")
        if name in b and is_recall and name.startswith("retrieval/"):
            intervals = (_wilson(metrics[name], metrics[f"{direction}_queries"]) for metrics in (a, b))
            yield Measure(name.removeprefix("retrieval/").replace("_", " "), a[name], b[name], *intervals)


def _mean(values: NDArray[np.float64], rows: NDArray[np.int64]) -> tuple[float]:
    return (float(values[rows].mean()),)


def _fraction(name: str, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Measure:
    """The fraction of samples for which something holds."""
    values = float(a.mean()), float(b.mean())
    return Measure(name, *values, *(_wilson(value, len(a)) for value in values))


def _wilson(fraction: float, samples: float) -> Interval:
    return wilson_interval(round(fraction * samples), int(samples))
