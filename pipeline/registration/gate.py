"""The gate: whether the challenger is better than the champion, decided from paired outcomes only.

    floor      the challenger must beat the baselines without a model (majority class, chance)
    evidence   it must beat the champion on the same samples, by more than chance explains

Right/wrong outcomes go through McNemar's exact test, scores through a paired bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import Config
from pipeline.counted import counted
from pipeline.errors import WorkError
from pipeline.evaluation.paired_test import mcnemar, paired_bootstrap


class GateConfig(Config):
    """When a challenger (the new model) replaces the champion."""

    max_p_value: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Maximum p-value of the improvement over the champion, in a paired test. 1: significance is "
        "not required.",
    )
    min_gain: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Improvement over the champion that must be exceeded, as a fraction: 0.01 is one percentage "
        "point of accuracy.",
    )
    beat_floor: bool = Field(
        True,
        description="Reject a model that is not better than the baseline (chance, or the most frequent class), "
        "even without a champion.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Random seed of the bootstrap test.")


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a model, sample by sample.

    Attributes:
        measure: name of the values, e.g. "accuracy".
        ids: [n] the samples.
        values: [n] booleans (right or wrong), or scores; higher is better.
        floor_measure: name of the measure that is compared with the floor, e.g. "accuracy".
        floor_value: the model's value of this measure.
        floor: the value of the best baseline without a model.
    """

    measure: str
    ids: NDArray[np.int64]
    values: NDArray[Any]
    floor_measure: str
    floor_value: float
    floor: float

    @property
    def mean(self) -> float:
        """The mean over all samples."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes the champion, and why, in one sentence with the numbers.

    Attributes:
        difference: challenger minus champion, None without a comparison.
        p_value: probability of at least this difference by chance alone, None without a comparison.
    """

    promote: bool
    reason: str
    difference: float | None = None
    p_value: float | None = None


def decide(challenger: Outcomes, champion: Outcomes | None, config: GateConfig) -> Decision:
    """Decides whether the challenger replaces the champion.

    Args:
        champion: outcomes on the same samples; None if there is no champion yet.
    Raises:
        WorkError: the outcomes are of different samples, or of different measures.
    """
    if config.beat_floor and not challenger.floor_value > challenger.floor:
        return Decision(
            False,
            f"{challenger.floor_measure} {_formatted(challenger.floor_value)} does not beat"
            f" {_formatted(challenger.floor)}, which needs no model",
        )
    if champion is None:
        return Decision(True, f"no champion yet; {challenger.measure} {_formatted(challenger.mean)}")
    if champion.measure != challenger.measure or not np.array_equal(champion.ids, challenger.ids):
        raise WorkError(
            f"gate: champion ({champion.measure}, {len(champion.ids)} samples) and challenger"
            f" ({challenger.measure}, {len(challenger.ids)} samples) were not measured alike"
        )
    difference, p_value, detail = _compare(challenger, champion, config)
    promote = difference > config.min_gain and p_value <= config.max_p_value
    if promote:
        verdict = "better than the champion"
    elif difference <= config.min_gain:
        asked = f" by more than {_formatted(config.min_gain)}" if config.min_gain else ""
        verdict = f"not better than the champion{asked}"
    else:
        verdict = "perhaps better than the champion, but it may be luck"
    return Decision(
        promote,
        f"{verdict}: {challenger.measure} {_formatted(challenger.mean)} against {_formatted(champion.mean)} on"
        f" {counted(len(challenger.ids), 'sample')} ({detail}, p = {p_value:.2g},"
        f" asked for {config.max_p_value:g} or less)",
        difference,
        p_value,
    )


def _compare(challenger: Outcomes, champion: Outcomes, config: GateConfig) -> tuple[float, float, str]:
    if challenger.values.dtype == np.bool_:
        test = mcnemar(challenger.values, champion.values)
        detail = f"{test.only_first} right only by it, {test.only_second} only by the champion"
        return test.difference, test.p_value, detail
    bootstrap = paired_bootstrap(challenger.values, champion.values, seed=config.seed)
    return bootstrap.difference, bootstrap.p_value, f"95% of resamples {bootstrap.low:+.3f} to {bootstrap.high:+.3f}"


def _formatted(value: float) -> str:
    return f"{value:.4f}"
