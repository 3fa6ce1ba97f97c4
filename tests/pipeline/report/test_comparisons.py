"""The sentence on teacher and baseline says what the paired test says."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.report.comparisons import baseline_above_champion, baseline_notes, teacher_against_baseline
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


def champion_is(run: RunData, champion: str) -> RunData:
    """The run with a registration of `champion` as champion."""
    artifacts: dict[str, Any] = {
        name: SimpleNamespace(name=f"{name}-stage/0a1b", summary={}) for name in ("baseline", "student", "teacher")
    }
    registration: Any = SimpleNamespace(
        summary={"name": "pets", "version": 1, "champion": 1, "promoted": True},
        manifest={"inputs": {"model": artifacts[champion].name}},
    )
    return replace(run, artifacts=artifacts, registrations={"classifier-registration": registration})


def test_a_probe_above_the_champion_comes_with_the_command_that_registers_it() -> None:
    run = run_of(teacher=right(85), student=right(70), baseline=right(90))
    said = baseline_above_champion(champion_is(run, "student"))
    assert said is not None
    assert said.startswith("The linear probe is 20.0 points more accurate than the champion, the student (95% interval")
    command = "tutelage run register-model --set model=baseline-stage/0a1b --set registration.classifier_name=pets"
    assert said.endswith(command)
    said = baseline_above_champion(champion_is(run_of(teacher=right(89), baseline=right(90)), "teacher"))
    assert said is not None
    assert said.startswith("No difference can be shown: the linear probe is 1.0 points more accurate than")
    assert len(baseline_notes(champion_is(run, "student"))) == 2


def test_a_probe_that_is_not_above_the_champion_is_not_advised() -> None:
    assert baseline_above_champion(champion_is(run_of(student=right(90), baseline=right(90)), "student")) is None
    assert baseline_above_champion(run_of(student=right(80), baseline=right(90))) is None
