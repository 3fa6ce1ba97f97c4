"""Models of a run compared on the same images, with McNemar's test."""

from __future__ import annotations

from pipeline.counted import counted
from pipeline.evaluation.difference import accuracy_difference, p_value
from pipeline.evaluation.paired_test import McNemarResult, mcnemar
from pipeline.report.registered_models import champion_registration, model_name, registered_name
from pipeline.report.run_data import RunData
from pipeline.report.wording import points

_SIGNIFICANT = 0.05


def mcnemar_between(run: RunData, first: str, second: str) -> McNemarResult | None:
    """The test of two models of the run; None unless both were evaluated on the same images.

    Args:
        first, second: e.g. "student"; a positive difference means that the first is better.
    """
    by_subject = {evaluation.subject: evaluation.outcomes for evaluation in run.evaluations}
    ours, theirs = by_subject.get(first), by_subject.get(second)
    if not ours or theirs is None or ours.keys() != theirs.keys():
        return None
    ids = sorted(ours)
    return mcnemar([ours[id] for id in ids], [theirs[id] for id in ids])


def baseline_notes(run: RunData) -> list[str]:
    """Sentences on the linear probe: whether the teacher is better, and what to do if the champion is not."""
    sentences = (teacher_against_baseline(run), baseline_above_champion(run))
    return [sentence for sentence in sentences if sentence is not None]


def teacher_against_baseline(run: RunData) -> str | None:
    """A sentence that says whether training the teacher was better than the linear probe of its pretrained weights."""
    test = mcnemar_between(run, "teacher", "baseline")
    if test is None:
        return None
    difference, low, high = (points(share) for share in (test.difference, test.low, test.high))
    on = f"on the same {counted(test.samples, 'image')}"
    bounds = f"95% interval {low} to {high}; McNemar's exact test, {p_value(test.p_value)}"
    if test.p_value >= _SIGNIFICANT:
        return f"The teacher is not better than the linear probe {on}: {difference} points ({bounds})."
    word = "better" if test.difference > 0 else "worse"
    return f"The teacher is {100 * abs(test.difference):.1f} points {word} than the linear probe {on} ({bounds})."


def baseline_above_champion(run: RunData) -> str | None:
    """Says that the linear probe is more accurate than the champion, and how to register it; None if it is not."""
    name = champion_registration(run)
    if name is None or "baseline" not in run.artifacts:
        return None
    registration = run.registrations[name]
    champion = str(model_name(run, registration))
    test = mcnemar_between(run, "baseline", champion)
    if test is None or test.difference <= 0:
        return None
    difference = accuracy_difference(test, "the linear probe", f"the champion, the {champion}")
    return (
        f"{difference[0].upper()}{difference[1:]}. To register it too, as champion if it is shown to be better: "
        f"tutelage run register-model --set model={run.artifacts['baseline'].name} "
        f"--set registration.classifier_name={registered_name(name, registration.summary)}"
    )
