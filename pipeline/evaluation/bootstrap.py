"""Intervals of measures that are no fraction of the samples: F1, calibration, mean ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pipeline.counter_rng import generator

_ROUNDING = 1e-9  # Sums of equal numbers differ by less.


def bootstrap_intervals(
    measure: Callable[[NDArray[np.int64]], Sequence[float]],
    samples: int,
    *,
    seed: int = 0,
    resamples: int = 400,
    confidence: float = 0.95,
) -> list[tuple[float, float] | None]:
    """Intervals of measures in [0, 1]: each value plus and minus a multiple of its bootstrap standard error.

    None for a measure that is the same in every resample, as a macro F1 of 1 is: the samples do not show how much it
    would differ for others, and an interval without width would claim that it does not.

    The percentiles of the resamples would not do: repeated samples raise a calibration error and lower a macro F1, so
    that the value itself could be outside. The same samples and seed give the same resamples: those of two models are
    paired.

    Args:
        measure: the values of the measures on a selection of the samples, [samples] numbers that may repeat.
        samples: > 0.
        resamples: > 1; with 400 the width of an interval is exact to about 4%.
        confidence: coverage of the intervals, in (0, 1).
    Source: Efron and Tibshirani 1993, chapters 6 and 13.
    """
    centre = np.array(measure(np.arange(samples, dtype=np.int64)))
    values = np.array(
        [measure(generator(seed, "bootstrap", n).integers(0, samples, size=samples)) for n in range(resamples)]
    )
    half_widths = NormalDist().inv_cdf(0.5 + confidence / 2.0) * values.std(axis=0, ddof=1)
    lows, highs = np.maximum(0.0, centre - half_widths), np.minimum(1.0, centre + half_widths)
    varies = np.ptp(values, axis=0) > _ROUNDING
    return [
        (low, high) if different else None
        for low, high, different in zip(lows.tolist(), highs.tolist(), varies.tolist(), strict=True)
    ]
