"""The sentence on teacher and baseline says what the paired test says."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.report.comparisons import teacher_against_baseline
from pipeline.report.run_data import Evaluation, RunData


def run_of(**outcomes: dict[int, bool]) -> RunData:
    nothing: Any = None
    evaluations = [
        Evaluation(subject, nothing, {}, [], {}, None, outcomes=answers) for subject, answers in outcomes.items()
    ]
    return RunData({}, [], evaluations, {}, {}, [], {})


def right(count: int, of: int = 100) -> dict[int, bool]:
    return {id: id < count for id in range(of)}


@pytest.mark.parametrize(
    ("teacher", "baseline", "sentence"),
    [
        (90, 70, "The teacher is 20.0 points better than the linear probe on the same 100 images (95% interval +"),
        (70, 90, "The teacher is 20.0 points worse than the linear probe on the same 100 images (95% interval −"),
        (91, 90, "The teacher is not better than the linear probe on the same 100 images: +1.0 points (95% interval −"),
    ],
)
def test_better_worse_or_not_better(teacher: int, baseline: int, sentence: str) -> None:
    found = teacher_against_baseline(run_of(teacher=right(teacher), baseline=right(baseline)))
    assert found is not None
    assert found.startswith(sentence)
    assert "McNemar's exact test, p" in found


def test_nothing_is_said_of_other_images_or_of_one_model() -> None:
    assert teacher_against_baseline(run_of(teacher=right(5), student=right(4))) is None
    assert teacher_against_baseline(run_of(teacher=right(5), baseline=right(4, of=99))) is None
