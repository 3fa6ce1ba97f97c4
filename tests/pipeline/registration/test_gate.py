from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import WorkError
from pipeline.registration.gate import GateConfig, Outcomes, decide


def outcomes(right: int, samples: int = 100, *, floor: float = 0.3, first: int = 0) -> Outcomes:
    """The samples from `first` on are right, `right` of them."""
    values = np.zeros(samples, dtype=bool)
    values[first : first + right] = True
    return Outcomes("accuracy", np.arange(samples), values, "accuracy", right / samples, floor)


def test_the_first_model_is_promoted_and_told_so() -> None:
    decision = decide(outcomes(50), None, GateConfig())
    assert decision.promote
    assert decision.reason == "no champion yet; accuracy 0.5000"


def test_a_model_that_does_not_beat_the_floor_is_refused_even_as_the_first() -> None:
    decision = decide(outcomes(30), None, GateConfig())
    assert not decision.promote
    assert decision.reason == "accuracy 0.3000 does not beat 0.3000, which needs no model"
    assert decide(outcomes(30), None, GateConfig(beat_floor=False)).promote


def test_a_clearly_better_model_is_promoted_with_its_numbers() -> None:
    decision = decide(outcomes(70), outcomes(50), GateConfig())
    assert decision.promote
    assert decision.p_value == pytest.approx(2 * 0.5**20)
    assert "better than the champion: accuracy 0.7000 against 0.5000 on 100 samples" in decision.reason
    assert "20 right only by it, 0 only by the champion" in decision.reason


def test_a_gain_that_may_be_luck_is_not_enough_unless_asked_for() -> None:
    lucky = decide(outcomes(53), outcomes(50), GateConfig())
    assert not lucky.promote
    assert lucky.reason.startswith("perhaps better than the champion, but it may be luck")
    assert decide(outcomes(53), outcomes(50), GateConfig(max_p_value=1.0)).promote


def test_an_equal_or_worse_model_stays_out_however_the_gate_is_set() -> None:
    for right in (50, 40):
        decision = decide(outcomes(right), outcomes(50), GateConfig(max_p_value=1.0))
        assert not decision.promote
        assert decision.reason.startswith("not better than the champion:")


def test_a_small_gain_is_refused_where_a_larger_one_is_asked_for() -> None:
    decision = decide(outcomes(60), outcomes(50), GateConfig(min_gain=0.2))
    assert not decision.promote
    assert decision.reason.startswith("not better than the champion by more than 0.2000")


def test_scores_are_compared_by_their_bootstrap() -> None:
    generator = np.random.default_rng(0)
    champion = generator.uniform(0, 0.8, 200)

    def scored(values: np.ndarray) -> Outcomes:
        return Outcomes("mean reciprocal rank", np.arange(200), values, "recall@1", 0.5, 0.1)

    better = decide(scored(champion + 0.1), scored(champion), GateConfig())
    assert better.promote
    assert better.difference == pytest.approx(0.1)
    same = decide(scored(generator.permutation(champion)), scored(champion), GateConfig())
    assert not same.promote


def test_outcomes_of_other_samples_or_measures_are_not_compared() -> None:
    with pytest.raises(WorkError, match="not measured alike"):
        decide(outcomes(50), outcomes(50, samples=90), GateConfig())
