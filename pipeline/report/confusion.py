"""The confusion matrix as SVG, with a cell's counts in its tooltip, and the most frequent confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import per_class_accuracy
from pipeline.html.markup import Markup, escape_html

MAX_CLASSES = 60  # limit on the rows and columns of the figure
_LONGEST_NAME = 24  # characters


@dataclass(frozen=True)
class ConfusedPair:
    """`count` of the `total` samples of class `true` were predicted as `predicted`."""

    true: int
    predicted: int
    count: int
    total: int


def confused_pairs(confusion: NDArray[np.int64], limit: int) -> list[ConfusedPair]:
    """The `limit` most frequent confusions, by count and then by fraction of the true class."""
    totals = confusion.sum(axis=1)
    off = confusion.copy()
    np.fill_diagonal(off, 0)
    pairs = [
        ConfusedPair(int(t), int(p), int(off[t, p]), int(totals[t])) for t, p in zip(*np.nonzero(off), strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.count / pair.total, pair.true, pair.predicted))[:limit]


def shown_classes(confusion: NDArray[np.int64]) -> list[int]:
    """The classes that fit: all of them, or the ones with most mistakes, in index order."""
    if len(confusion) <= MAX_CLASSES:
        return list(range(len(confusion)))
    wrong = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
    return sorted(np.argsort(-wrong, kind="stable")[:MAX_CLASSES].tolist())


def confusion_figure(confusion: NDArray[np.int64], names: Sequence[str]) -> Markup:
    """Rows are true classes, columns predictions; a cell's colour intensity is its fraction of the row.

    Correct predictions are blue, wrong ones orange. Empty cells are not drawn, which keeps the SVG small.
    """
    classes = shown_classes(confusion)
    count = len(classes)
    cell = max(13.0, min(40.0, 760.0 / count))
    left = top = 8.0 + 5.6 * min(_LONGEST_NAME, max(len(names[c]) for c in classes))
    size = cell * count
    width, height = left + size + 46.0, top + size + 6.0
    totals = np.maximum(confusion.sum(axis=1), 1)
    accuracies = per_class_accuracy(confusion)
    elements = [
        # A figure of few classes is not enlarged beyond need, and fits on a phone.
        f'<svg class="confusion" style="min-width: {min(780, width):.0f}px; max-width: {min(1000, 2 * width):.0f}px" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="Confusion matrix of {count} classes; rows are true classes, columns predictions">'
    ]
    for position, c in enumerate(classes):
        x, y = left + position * cell, top + position * cell
        name = escape_html(_short(names[c]))
        middle = middle_of(cell)
        elements.append(f'<line class="rule" x1="{left:.1f}" x2="{left + size:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        elements.append(f'<line class="rule" y1="{top:.1f}" y2="{top + size:.1f}" x1="{x:.1f}" x2="{x:.1f}"/>')
        elements.append(f'<text x="{left - 6:.1f}" y="{y + middle:.1f}" text-anchor="end">{name}</text>')
        elements.append(f'<text transform="translate({x + middle:.1f} {top - 6:.1f}) rotate(-90)">{name}</text>')
        if not np.isnan(accuracies[c]):
            elements.append(
                f'<text class="axis{" zero" if accuracies[c] == 0 else ""}" x="{left + size + 6:.1f}" '
                f'y="{y + middle:.1f}">{accuracies[c]:.0%}</text>'
            )
    for row, t in enumerate(classes):
        for column, p in enumerate(classes):
            n = int(confusion[t, p])
            if n == 0:
                continue
            share = n / int(totals[t])
            tooltip = escape_html(f"{names[t]} → {names[p]}: {n} of {int(totals[t])}")
            elements.append(
                f'<rect class="cell{"" if t == p else " off"}" x="{left + column * cell:.1f}" '
                f'y="{top + row * cell:.1f}" width="{cell:.1f}" height="{cell:.1f}" '
                f'fill-opacity="{0.12 + 0.88 * share:.2f}"><title>{tooltip}</title></rect>'
            )
            if cell >= 24:
                elements.append(
                    f'<text x="{left + (column + 0.5) * cell:.1f}" y="{top + row * cell + middle_of(cell):.1f}" '
                    f'text-anchor="middle" pointer-events="none">{n}</text>'
                )
    elements.append("</svg>")
    return Markup("".join(elements))


def middle_of(cell: float) -> float:
    """The baseline of a text line that appears centred in a cell, in pixels from the cell's top."""
    return cell / 2 + 3.2


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
