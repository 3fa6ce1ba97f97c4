"""Line and area figures as inline SVG with the colours and the font of the page.

Matplotlib draws with placeholder colours, which are then replaced by the page's variables, so one
figure serves the light and the dark theme. Long series are thinned to the visible resolution.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from pipeline.html.figure_style import figure_style
from pipeline.html.markup import Markup, escape_html
from pipeline.html.theme import SERIES

_MUTED, _LINE = "#0a0b0c", "#0d0e0f"
_SERIES = tuple(f"#a1000{number}" for number in range(1, len(SERIES) + 1))
_VARIABLES = {_MUTED: "var(--muted)", _LINE: "var(--line)"} | {
    stand_in: f"var(--{name})" for stand_in, name in zip(_SERIES, SERIES, strict=True)
}
_WIDTH_IN, _HEIGHT_IN = 5.4, 3.1
_MAX_POINTS = 240  # limit on the points of a curve
_LEGEND_CHARS = 64  # that fit in one line of the legend
_STYLE = figure_style(ink=_MUTED, muted=_MUTED, line=_LINE) | {
    "svg.fonttype": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Series:
    """A line: its name, its (x, y) points in order, and the index of its colour."""

    name: str
    points: Sequence[tuple[float, float]]
    color: int


def line_figure(
    key: str, title: str, series: Sequence[Series], *, x_label: str, share: bool = False, levels: Sequence[float] = ()
) -> Markup:
    """Lines over a common x axis; two or more are named in a legend.

    Args:
        key: unique on the page; makes the ids of the figures distinct.
        title: for screen readers; the caption shows it to other readers.
        share: the values are fractions, shown as percentages.
        levels: values at which a horizontal dashed line is drawn.
    """
    with mpl.rc_context(_STYLE | {"svg.hashsalt": key}):
        figure, axes = _axes(x_label)
        for level in levels:
            axes.axhline(level, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for line in series:
            x, y = zip(*thin_out(line.points), strict=True)
            marker = "o" if len(x) <= 2 else None
            axes.plot(x, y, color=_SERIES[line.color % len(_SERIES)], label=line.name, marker=marker, markersize=4)
        if share:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if axes.get_ylim()[1] > 0.08 else 1))
        axes.margins(x=0.02)
        if len(series) > 1:
            _legend(axes, [line.name for line in series])
        return _svg(figure, key, title)


def stack_figure(
    key: str, title: str, x: Sequence[float], bands: Sequence[tuple[str, Sequence[float]]], *, x_label: str
) -> Markup:
    """Fractions that sum to 1, as bands over steps; a value applies until the next one."""
    with mpl.rc_context(_STYLE | {"svg.hashsalt": key, "axes.grid": False}):
        figure, axes = _axes(x_label)
        shown = evenly_spaced_indices(len(x))
        steps = np.asarray(x, dtype=np.float64)[shown]
        lower = np.zeros(len(shown))
        for number, (name, shares) in enumerate(bands):
            upper = lower + np.asarray(shares, dtype=np.float64)[shown]
            color = _SERIES[number % len(_SERIES)]
            axes.fill_between(steps, lower, upper, step="post", color=color, alpha=0.75, linewidth=0, label=name)
            lower = upper
        axes.set_ylim(0, 1)
        axes.margins(x=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _legend(axes, [name for name, _ in bands])
        return _svg(figure, key, title)


def thin_out(points: Sequence[tuple[float, float]], limit: int = _MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: means over equal intervals, so that a spike is damped and not lost."""
    if len(points) <= limit:
        return list(points)
    edges = np.linspace(0, len(points), limit + 1).astype(int).tolist()
    means = [np.mean(points[low:high], axis=0) for low, high in pairwise(edges)]
    return [(float(x), float(y)) for x, y in means]


def evenly_spaced_indices(length: int, limit: int = _MAX_POINTS) -> list[int]:
    """At most `limit` indices of a sequence, including the first and the last."""
    return sorted(set(np.linspace(0, length - 1, min(length, limit)).round().astype(int).tolist()))


def _axes(x_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN))
    axes = figure.add_axes((0.095, 0.155, 0.88, 0.715))
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_x_text))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def _x_text(value: float, _: int | None) -> str:
    """A tick as text; it has decimals if it is not whole, since a training of one epoch has ticks inside it."""
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Draws the names above the axes, in as many columns as fit; two lines of names shrink the axes."""
    columns = min(4, len(names), max(1, _LEGEND_CHARS // (max(len(name) for name in names) + 5)))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, handlelength=1.4, columnspacing=1.4)
    extra_lines = -(-len(names) // columns) - 1
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.width, box.height - 0.065 * extra_lines))


def _svg(figure: Figure, key: str, title: str) -> Markup:
    """The figure's SVG without its prolog, with unique ids and the page's colours and font."""
    buffer = io.StringIO()
    nothing: Any = {"Creator": None, "Date": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    # Matplotlib's <style> has a rule for `*`, which would apply to the whole page.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r' id="(?=[^"]*_\d+")[^"]*"', "", body)  # group names that nothing refers to
    body = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', body)
    body = re.sub(r'(url\(|href=")#', rf"\1#{key}-", body)
    body = re.sub(r"font-family: [^;\"]*;?\s*", "", body)
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><")
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, variable)
    width, height = _WIDTH_IN * 72, _HEIGHT_IN * 72
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape_html(title)}" '
        f'stroke-linejoin="round" font-family="inherit">'
    )
    return Markup(opening + body)
