"""Metrics of a classifier, each a pure function of arrays.

Axes: N samples, K classes. Labels and predictions are class numbers in [0, K).
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]


def label_ranks(scores: NDArray[np.floating], labels: Labels) -> NDArray[np.int64]:
    """The rank of the true class among all classes, 1 for the best, [N].

    Equal scores are ranked in the order of the classes, as argmax and topk do; so rank 1 means exactly that
    the prediction is right, and a model that gives all classes the same score gains nothing.

    Args:
        scores: [N, K]; higher is more likely.
        labels: [N].
    Raises:
        ValueError: a score is NaN (which would rank best), or shapes differ.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or len(scores) != len(labels):
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} do not belong together")
    if np.isnan(scores).any():
        raise ValueError("scores hold values that are not numbers")
    label_scores = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    return 1 + ((scores > label_scores) | ((scores == label_scores) & earlier)).sum(axis=1)


def top_k_accuracy(scores: NDArray[np.floating], labels: Labels, k: int = 1) -> float:
    """Fraction of samples with the true class among the k best scores."""
    return _share(label_ranks(scores, labels) <= k)


def chance_accuracy(num_classes: int, k: int = 1) -> float:
    """Accuracy of k different random guesses: k / K."""
    return min(1.0, k / num_classes)


def majority_accuracy(train_labels: Labels, labels: Labels, k: int = 1) -> float:
    """Accuracy on `labels` of always predicting the k most frequent *training* labels.

    A constant prediction may use training data only, so the label counts of the evaluated samples do not
    matter. Ties go to the smaller class number; negative labels (no label) are left out.
    """
    known = train_labels[train_labels >= 0]
    if len(known) == 0:
        raise ValueError("no training labels to take the most frequent from")
    counts = np.bincount(known)
    most_frequent = np.argsort(-counts, kind="stable")[:k]
    return _share(np.isin(labels, most_frequent))


def confusion_matrix(labels: Labels, predicted: Labels, num_classes: int) -> NDArray[np.int64]:
    """Counts, [K, K]: row is the true class, column the predicted one."""
    cells = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def per_class_accuracy(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fraction of each true class that was predicted right, [K]; NaN for a class without samples."""
    return class_accuracies(np.diag(confusion), confusion.sum(axis=1))


def class_accuracies(correct: NDArray[np.integer], totals: NDArray[np.integer]) -> NDArray[np.float64]:
    """Fraction of each class that was predicted right, [K], from counts [K]; NaN for a class without samples."""
    return np.divide(correct, totals, out=np.full(len(totals), np.nan), where=totals > 0)


def balanced_accuracy(confusion: NDArray[np.int64]) -> float:
    """Mean of the per-class accuracies over the classes that have samples; chance is 1 / K."""
    return mean_class_accuracy(np.diag(confusion), confusion.sum(axis=1))


def mean_class_accuracy(correct: NDArray[np.integer], totals: NDArray[np.integer]) -> float:
    """Balanced accuracy from counts by class, [K]."""
    accuracies = class_accuracies(correct, totals)
    present = accuracies[~np.isnan(accuracies)]
    if len(present) == 0:
        raise ValueError("no samples to measure")
    return float(present.mean())


def balanced_accuracy_interval(confusion: NDArray[np.int64], confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a balanced accuracy: Wilson's, with the effective number of samples.

    A sample of a class with n samples has the weight 1 / n, so that the effective number is K^2 / sum(1 / n) over the K
    classes that have samples. With equally many samples of each class the interval is that of the accuracy. It takes
    the classes as equally accurate. In simulations with 2 to 50 classes of 2 to 1000 samples, a 95% interval had the
    true value in it in 90% to 100% of cases. The normal interval, which takes the variance of each class from its own
    few samples, had it in 50% to 95%, and has no width if each class is always or never right, as with a constant
    prediction; likewise the bootstrap's.

    Source: Kish 1965, section 11.7, for the effective number; Wilson's interval with it: Dean and Pagano 2015.
    """
    totals = confusion.sum(axis=1)
    present = totals[totals > 0]
    samples = len(present) ** 2 / float((1.0 / present).sum())
    return wilson_interval(balanced_accuracy(confusion) * samples, samples, confidence)


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur as label or as prediction.

    Source: Opitz and Burst 2019, the mean of the F1 scores (not the F1 of the means); the same as
        scikit-learn's f1_score(average="macro").
    """
    right = np.diag(confusion)
    occurrences = confusion.sum(axis=0) + confusion.sum(axis=1)
    occurring = occurrences > 0
    if not occurring.any():
        raise ValueError("no samples to measure")
    return float((2.0 * right[occurring] / occurrences[occurring]).mean())


def expected_calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean difference between confidence and accuracy over bins, weighted by samples; 0 is perfectly calibrated.

    Args:
        confidence: [N] in [0, 1], probability of the prediction.
        correct: [N] whether the prediction was right.
        bins: equally wide intervals (low, high]; 0 falls into the first.
    Source: Guo et al. 2017, equation 3, with its 15 bins.
    """
    return calibration_error_of(calibration_sums(confidence, correct, bins), len(confidence))


def calibration_sums(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15
) -> NDArray[np.float64]:
    """The sums of confidence and of correct predictions in each bin, [2, bins]; those of parts of the data add up.

    Args:
        confidence, correct, bins: as in `expected_calibration_error`.
    """
    bin_of = np.clip(np.ceil(np.asarray(confidence, dtype=np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    confidences = np.bincount(bin_of, weights=confidence, minlength=bins)
    hits = np.bincount(bin_of, weights=correct, minlength=bins)
    return np.stack([confidences, hits])


def calibration_error_of(sums: NDArray[np.float64], samples: int) -> float:
    """The expected calibration error of `samples` samples with these `calibration_sums`."""
    if samples == 0:
        raise ValueError("no samples to measure")
    return float(np.abs(sums[0] - sums[1]).sum() / samples)


def wilson_interval(successes: float, samples: float, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a fraction; unlike the normal interval it stays in [0, 1] and is accurate near the ends.

    Args:
        successes, samples: counts, or effective numbers of weighted samples.
    Source: Wilson 1927.
    """
    if not 0 <= successes <= samples or samples == 0:
        raise ValueError(f"{successes} of {samples} samples is no share")
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share = successes / samples
    centre = share + z * z / (2 * samples)
    half_width = z * float(np.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples)))
    scale = 1 + z * z / samples
    # At the ends the bound equals 0 or 1 but for rounding.
    low = 0.0 if successes == 0 else (centre - half_width) / scale
    high = 1.0 if successes == samples else (centre + half_width) / scale
    return low, high


def _share(hits: NDArray[np.bool_]) -> float:
    if len(hits) == 0:
        raise ValueError("no samples to measure")
    return float(hits.mean())
