"""Sections on classification quality: accuracies with their baselines, confusion, worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.evaluation.difference import p_value
from pipeline.html.markup import Child, Markup, details, join, table, tag
from pipeline.report.comparisons import baseline_notes, mcnemar_between
from pipeline.report.confusion import confused_pairs, confusion_figure
from pipeline.report.gallery import Gallery
from pipeline.report.registered_models import champion_classifier
from pipeline.report.run_data import Evaluation, RunData
from pipeline.report.weak_points import weak_points
from pipeline.report.wording import display_name, percent, points

_PAIRS_SHOWN = 10
_STRIP_PX, _STRIP_HEIGHT_PX = 190, 18


def accuracy_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(displayed name, prefix, suffix) of every accuracy in `metrics` (PREFIX/top1SUFFIX), the overall one first."""
    rows = []
    for prefix, kind in (("accuracy", ""), ("zero_shot", "zero-shot, ")):
        start = f"{prefix}/samples"
        suffixes = [name.removeprefix(start) for name in evaluation.metrics if name.startswith(start)]
        rows += [(kind + _subset_name(suffix), prefix, suffix) for suffix in suffixes]
    order = {"": 0, "_seen_concepts": 1, "_unseen_concepts": 2}
    return sorted(rows, key=lambda row: (row[1], order.get(row[2], 3), row[2]))


def accuracy_section(run: RunData, *, mistakes: bool) -> Markup | None:
    """Every accuracy with its interval and with the accuracies of chance and of the most frequent class.

    Args:
        mistakes: the page has the section of suspected label errors.
    """
    rows: list[list[Child]] = []
    for evaluation in run.evaluations:
        metrics = evaluation.metrics
        for subset, prefix, suffix in accuracy_rows(evaluation):
            for k in (1, 5):
                name = f"{prefix}/top{k}"
                if f"{name}{suffix}" not in metrics or (k == 5 and suffix):
                    continue
                top = "" if k == 1 else f"_top{k}"
                value, low, high = (metrics[f"{name}{bound}{suffix}"] for bound in ("", "_low", "_high"))
                chance = metrics[f"{prefix}/chance{top}{suffix}"]
                majority = metrics.get(f"{prefix}/majority{top}{suffix}")
                rows.append(
                    [
                        tag("strong", display_name(evaluation.subject))
                        if not suffix and k == 1
                        else display_name(evaluation.subject),
                        subset if k == 1 else f"{subset}, top 5",
                        tag("strong", percent(value)),
                        join(_strip(value, low, high, chance, majority)),
                        f"{low:.1%} – {high:.1%}",
                        percent(chance),
                        "" if majority is None else percent(majority),
                        f"{metrics[f'{prefix}/samples{suffix}']:,.0f}",
                    ]
                )
    if not rows:
        return None
    head = ["model", "measured on", "accuracy", "0 – 100%", "95% interval", "chance", "majority", "images"]
    notes = [
        *[_other_measures(evaluation) for evaluation in run.evaluations],
        *(tag("p", sentence, class_="note") for sentence in baseline_notes(run)),
        _student_against_teacher(run),
    ]
    splits = " and ".join(sorted({evaluation.split for evaluation in run.evaluations if evaluation.split}))
    return join(
        tag(
            "p",
            f"On the {splits} split. " if splits else "",
            "The bar is the 95% interval (Wilson), the dot the accuracy; the thin tick is chance, the thick one the "
            "majority rate: the accuracy of always predicting the most frequent label of the training split."
            + (" Unseen concepts are those with no image in the training split." if run.has_concepts else ""),
            class_="lead",
        ),
        table(head, rows, numeric=frozenset({2, 4, 5, 6, 7}), class_="broad"),
        *[note for note in notes if note is not None],
        weak_points(run, mistakes=mistakes),
    )


def confusion_section(run: RunData) -> Markup | None:
    """Each model's confusion matrix and most frequent confusions; the first is expanded, the others collapsed."""
    content: list[Child] = []
    for evaluation in _champion_first(run):
        confusion = evaluation.confusion
        if confusion is None or confusion.sum() == 0:
            continue
        names = run.label_names(len(confusion))
        figure = tag("div", confusion_figure(confusion, names), class_="scroll", tabindex=0)
        legend = tag("p", "Rows: true class; columns: predicted class; right margin: accuracy.", class_="note")
        content.append(_expanded_or_collapsed(content, evaluation, join(figure, legend, _pairs(confusion, names))))
    return join(*content) if content else None


def mistakes_section(run: RunData, gallery: Gallery, limit: int) -> Markup | None:
    """The `limit` wrong predictions of each model with the highest confidence, with their images."""
    content: list[Child] = []
    shown = [mistake for evaluation in run.evaluations for mistake in evaluation.mistakes[:limit]]
    names = gallery.names(mistake["id"] for mistake in shown)
    for evaluation in _champion_first(run):
        if not evaluation.mistakes[:limit]:
            continue
        tiles = [
            tag(
                "div",
                gallery.thumb(mistake["id"], f"{names.get(mistake['id'], mistake['key'])}: {mistake['label']}"),
                tag("div", names.get(mistake["id"], mistake["key"]), title=f"key {mistake['key']}"),
                tag("div", tag("span", "true ", class_="quiet"), tag("span", mistake["label"], class_="true")),
                tag(
                    "div", tag("span", "predicted ", class_="quiet"), tag("span", mistake["predicted"], class_="false")
                ),
                tag("div", f"confidence {mistake['score']:.0%}", class_="quiet"),
                class_="tile",
            )
            for mistake in evaluation.mistakes[:limit]
        ]
        content.append(_expanded_or_collapsed(content, evaluation, tag("div", tiles, class_="tiles")))
    if not content:
        return None
    lead = tag(
        "p",
        "Wrong predictions among the evaluated images, the most confident first. If the picture shows what was "
        "predicted, its label is wrong: correct it in the source. Where the confidence is low, it may be the "
        "model that is wrong.",
        class_="lead",
    )
    return join(lead, *content)


def _champion_first(run: RunData) -> list[Evaluation]:
    """The evaluations with that of the classifier that is champion first."""
    champion = champion_classifier(run)
    return sorted(run.evaluations, key=lambda evaluation: evaluation.subject != champion)


def _expanded_or_collapsed(before: Sequence[Child], evaluation: Evaluation, content: Markup) -> Markup:
    """The content, expanded under a heading if it is the first, else collapsed."""
    name = display_name(evaluation.subject) + ("" if "accuracy/top1" in evaluation.metrics else ", zero-shot")
    if not before:
        return join(tag("h3", name.capitalize()), content)
    return details(f"The same for the {name}", content)


def _strip(value: float, low: float, high: float, chance: float, majority: float | None) -> Markup:
    """A scale from 0 to 1 that shows the interval, the value, chance and majority."""

    def x(share: float) -> str:
        return f"{4 + share * (_STRIP_PX - 8):.1f}"

    middle = _STRIP_HEIGHT_PX / 2
    description = f"{value:.1%}, interval {low:.1%} to {high:.1%}, chance {chance:.1%}"
    if majority is not None:
        description += f", majority {majority:.1%}"
    return tag(
        "svg",
        tag("title", description),
        tag("line", x1=x(0), x2=x(1), y1=middle, y2=middle, stroke="var(--line)", stroke_width=2),
        tag("line", x1=x(chance), x2=x(chance), y1=3, y2=15, stroke="var(--muted)", stroke_width=1),
        tag("line", x1=x(majority), x2=x(majority), y1=3, y2=15, stroke="var(--muted)", stroke_width=2.5)
        if majority is not None
        else None,
        tag(
            "line", x1=x(low), x2=x(high), y1=middle, y2=middle, stroke="var(--s1)", stroke_width=5, stroke_opacity=0.4
        ),
        tag("circle", cx=x(value), cy=middle, r=4, fill="var(--s1)"),
        class_="strip",
        viewBox=f"0 0 {_STRIP_PX} {_STRIP_HEIGHT_PX}",
        role="img",
        aria_label=description,
    )


def _pairs(confusion: NDArray[np.int64], names: Sequence[str]) -> Markup | None:
    pairs = confused_pairs(confusion, _PAIRS_SHOWN)
    if not pairs:
        return None
    rows: list[list[Child]] = [
        [
            names[pair.true],
            names[pair.predicted],
            f"{pair.count} of {pair.total}",
            f"{pair.count / pair.total:.0%}",
        ]
        for pair in pairs
    ]
    title = f"The {len(rows)} most frequent confusions"
    return details(title, table(["true", "predicted", "images", "share"], rows, numeric=frozenset({2, 3})))


def _other_measures(evaluation: Evaluation) -> Markup | None:
    names = {
        "accuracy/balanced": "balanced accuracy",
        "accuracy/macro_f1": "macro F1",
        "accuracy/calibration_error": "calibration error",
        "zero_shot/calibration_error": "zero-shot calibration error",
    }
    measures = [
        f"{words} {evaluation.metrics[name]:.1%}" for name, words in names.items() if name in evaluation.metrics
    ]
    if not measures:
        return None
    return tag("p", tag("strong", display_name(evaluation.subject)), ": " + ", ".join(measures) + ".", class_="note")


def _student_against_teacher(run: RunData) -> Markup | None:
    """The difference between student and teacher on the same images, with McNemar's test."""
    test = mcnemar_between(run, "student", "teacher")
    if test is None:
        return None
    difference, low, high = (points(share) for share in (test.difference, test.low, test.high))
    comparison = (
        f": {difference} points on the same {counted(test.samples, 'image')} (95% interval {low} to {high}; "
        f"only the student right: {test.only_first:,}, only the teacher right: {test.only_second:,}; "
        f"McNemar's exact test, {p_value(test.p_value)})."
    )
    return tag("p", tag("strong", "student against teacher"), comparison, class_="note")


def _subset_name(suffix: str) -> str:
    if suffix.startswith("_source/"):
        return f"family {suffix.removeprefix('_source/')}"
    return {"": "all images", "_seen_concepts": "seen concepts", "_unseen_concepts": "unseen concepts"}.get(
        suffix, suffix
    )
