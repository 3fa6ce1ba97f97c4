"""The weak points of a classifier, a sentence each: worst class, classes never right, most confused pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.html.markup import Markup, join, tag
from pipeline.report.confusion import confused_pairs
from pipeline.report.run_data import Evaluation, RunData
from pipeline.report.wording import display_name, percent

_MAX_NAMES = 8  # of classes, in a sentence


def weak_points(run: RunData, *, mistakes: bool) -> Markup | None:
    """The sentences of each classifier; None without a confusion matrix.

    Args:
        mistakes: the page has the section of suspected label errors, to which a link leads.
    """
    items = [
        tag("p", tag("strong", display_name(evaluation.subject)), ": ", text, class_="note")
        for evaluation in run.evaluations
        if (text := weak_points_text(run, evaluation, mistakes=mistakes)) is not None
    ]
    return tag("div", tag("h3", "Where it fails"), items) if items else None


def weak_points_text(run: RunData, evaluation: Evaluation, *, mistakes: bool) -> Markup | None:
    """The sentences of one classifier and a link to its suspected label errors; None without a confusion matrix."""
    confusion = evaluation.confusion
    if confusion is None or confusion.sum() == 0:
        return None
    sentences = weak_sentences(confusion, run.label_names(len(confusion)))
    suspects = tag("a", "Suspected label errors", href="#mistakes") if mistakes and evaluation.mistakes else None
    return join(f"{' '.join(sentences)} ", suspects)


def weak_sentences(confusion: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """The worst class, the classes without a correct prediction, and the most confused pair.

    Args:
        confusion: [K, K], rows are true classes; classes without images are not judged.
        names: [K] names of the classes.
    """
    totals, right = confusion.sum(axis=1), np.diag(confusion)
    present = np.flatnonzero(totals)
    if not present.size or right.sum() == totals.sum():
        return ["Every image is predicted correctly."] if present.size else []
    # Of equally bad classes the largest, whose accuracy is the most certain.
    worst = min(present.tolist(), key=lambda c: (right[c] / totals[c], -totals[c], c))
    sentences = [f"The worst class is {names[worst]}: {_of(right[worst], totals[worst])} right."]
    never = [names[c] for c in present.tolist() if right[c] == 0]
    if len(never) > 1:
        more = f" and {len(never) - _MAX_NAMES:,} more" if len(never) > _MAX_NAMES else ""
        sentences.append(f"{len(never):,} classes are never right: {', '.join(never[:_MAX_NAMES])}{more}.")
    sentences.append(f"The most confused pair: {confused_sentence(confusion, names)}.")
    return sentences


def confused_sentence(confusion: NDArray[np.int64], names: Sequence[str]) -> str:
    """The most frequent confusion, e.g. "6 of 24 images (25.0%) of cat predicted as dog"; "" without a mistake."""
    pairs = confused_pairs(confusion, 1)
    if not pairs:
        return ""
    pair = pairs[0]
    return f"{_of(pair.count, pair.total)} of {names[pair.true]} predicted as {names[pair.predicted]}"


def _of(count: int, total: int) -> str:
    return f"{count:,} of {counted(total, 'image')} ({percent(count / total)})"
