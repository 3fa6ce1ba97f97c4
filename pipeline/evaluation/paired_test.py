"""Is one model better than another on the same samples? Two tests that use the pairing.

Both models were evaluated on the same samples, so only the samples on which they differ carry evidence.
`mcnemar` compares right/wrong outcomes exactly; `paired_bootstrap` compares any score per sample
(reciprocal rank, log-likelihood). Differences are first minus second: positive means the first
is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.counter_rng import generator

_RESAMPLES_PER_DRAW = 256


@dataclass(frozen=True, slots=True)
class McNemarResult:
    """The outcome of McNemar's exact test.

    Attributes:
        p_value: two-sided; the probability that two equally good models differ at least this much.
        only_first: samples that only the first model got right.
        only_second: samples that only the second model got right.
        samples: samples compared.
        difference: accuracy of the first minus accuracy of the second.
        low: lower end of the interval of the difference.
        high: upper end of it.
    """

    p_value: float
    only_first: int
    only_second: int
    samples: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """The outcome of a paired bootstrap.

    Attributes:
        p_value: two-sided; twice the fraction of resamples whose difference is 0 or has the opposite sign.
        difference: mean of the first's scores minus mean of the second's.
        low: lower end of the percentile interval of the difference.
        high: upper end of it.
        resamples: how many resamples were drawn.
    """

    p_value: float
    difference: float
    low: float
    high: float
    resamples: int


def mcnemar(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> McNemarResult:
    """McNemar's exact two-sided test on paired right/wrong outcomes.

    Args:
        first: [n] True where the first model was right.
        second: [n] the same for the second model, sample by sample.
        confidence: coverage of the interval, in (0, 1).
    Raises:
        ValueError: no samples, different lengths, or values that are not booleans.
    Source: McNemar 1947 with the exact binomial tail instead of chi-square, which is too bold below
        about 25 differing samples. The interval is Agresti and Min 2005 (half a sample added to
        each of the four cells), which keeps its coverage where Wald's collapses to a point.
    """
    first_right, second_right = _outcomes(first), _outcomes(second)
    n = _paired_length(first_right, second_right)
    only_first = int(np.count_nonzero(first_right & ~second_right))
    only_second = int(np.count_nonzero(second_right & ~first_right))
    z = _normal_quantile(confidence)
    padded_n, padded_first, padded_second = n + 2.0, only_first + 0.5, only_second + 0.5
    centre = (padded_first - padded_second) / padded_n
    variance = (padded_first + padded_second - (padded_first - padded_second) ** 2 / padded_n) / padded_n**2
    half_width = z * float(np.sqrt(variance))
    return McNemarResult(
        p_value=binomial_two_sided(only_first, only_first + only_second),
        only_first=only_first,
        only_second=only_second,
        samples=n,
        difference=(only_first - only_second) / n,
        low=max(-1.0, centre - half_width),
        high=min(1.0, centre + half_width),
    )


def binomial_two_sided(successes: int, trials: int) -> float:
    """P(a fair coin's count is at least as far from trials / 2 as `successes`); 1 for no trials.

    The tail is summed in logarithms, so it neither overflows nor slows down with many trials.
    """
    fewer = min(successes, trials - successes)
    if trials == 2 * fewer:
        return 1.0
    k = np.arange(1, fewer + 1, dtype=np.float64)
    log_terms = np.concatenate([[0.0], np.cumsum(np.log(trials - k + 1) - np.log(k))])  # log C(trials, 0..fewer)
    largest = log_terms[-1]
    log_tail = largest + np.log(np.exp(log_terms - largest).sum()) - trials * np.log(2.0)
    return float(min(1.0, 2.0 * np.exp(log_tail)))


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> BootstrapResult:
    """Tests whether the mean scores differ, by resampling samples, each with the scores of both models.

    The same inputs and seed give the same result on every machine.

    Args:
        first: [n] score of the first model on each sample; higher is better.
        second: [n] the same for the second model.
        seed: of the resampling.
        resamples: > 0; the smallest p-value that can come out is 2 / (resamples + 1).
        confidence: coverage of the interval, in (0, 1).
    Raises:
        ValueError: no samples, different lengths, a score that is not finite, or no resamples.
    """
    first_scores = np.asarray(first, dtype=np.float64)
    second_scores = np.asarray(second, dtype=np.float64)
    n = _paired_length(first_scores, second_scores)
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be at least 1")
    _normal_quantile(confidence)  # only for its check
    differences = first_scores - second_scores
    if not np.isfinite(differences).all():
        raise ValueError("scores must be finite numbers")
    means = np.empty(resamples)
    for draw, start in enumerate(range(0, resamples, _RESAMPLES_PER_DRAW)):
        stop = min(start + _RESAMPLES_PER_DRAW, resamples)
        chosen = generator(seed, "paired-bootstrap", draw).integers(0, n, size=(stop - start, n))
        means[start:stop] = differences[chosen].mean(axis=1)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    # One is added above and below: the observed samples are themselves one of the possible resamples.
    far_side = min(np.count_nonzero(means <= 0.0), np.count_nonzero(means >= 0.0))
    return BootstrapResult(
        p_value=float(min(1.0, 2.0 * (far_side + 1) / (resamples + 1))),
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        resamples=resamples,
    )


def _outcomes(values: ArrayLike) -> NDArray[np.bool_]:
    outcomes = np.asarray(values)
    if outcomes.dtype != np.bool_ and outcomes.size:
        raise ValueError(f"outcomes must be booleans, not {outcomes.dtype}")
    return outcomes.astype(np.bool_)


def _paired_length(first: NDArray[np.generic], second: NDArray[np.generic]) -> int:
    if first.ndim != 1 or second.ndim != 1:
        raise ValueError(f"one value per sample is needed; the shapes are {first.shape} and {second.shape}")
    if len(first) != len(second):
        raise ValueError(
            f"{len(first)} and {len(second)} samples cannot be paired; evaluate both models on the same samples"
        )
    if len(first) == 0:
        raise ValueError("no samples to compare")
    return len(first)


def _normal_quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")
    return NormalDist().inv_cdf(0.5 + confidence / 2.0)
