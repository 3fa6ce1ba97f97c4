"""Histograms and curves as inline SVG, without a plotting library: the same numbers give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.html.markup import Markup, tag

_WIDTH, _HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 30
_BINS = 28  # of equal width
_MAX_SINGLE_VALUES = 16  # distinct values that get a bin each
_TAIL_QUANTILE = 0.995  # from which the tail bin begins
_NARROW_BAR = 30  # width in which a label does not fit

Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Bin:
    """The values in [low, high), or the value `low` if both are equal; a tail bin has all values from `low` on."""

    low: float
    high: float
    count: int
    tail: bool = False


def histogram_bins(values: NDArray[Any], *, integers: bool = True) -> list[Bin]:
    """Histogram of values: one bin per value if there are few, else bins of equal width; the last may be a tail bin."""
    if not len(values):
        return []
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= _MAX_SINGLE_VALUES:
        return [Bin(float(value), float(value), int(count)) for value, count in zip(distinct, counts, strict=True)]
    low, high = float(distinct[0]), float(distinct[-1])
    tail = float(np.quantile(values, _TAIL_QUANTILE, method="inverted_cdf"))
    has_tail = high - low > 2 * (tail - low) > 0
    end = tail if has_tail else high
    step = (end - low) / _BINS
    if integers:
        step = max(1.0, math.ceil(step))
    edges = [low + step * number for number in range(math.ceil((end - low) / step) + 1)]
    if edges[-1] <= end:
        edges.append(edges[-1] + step)
    images, _ = np.histogram(np.minimum(values, edges[-1] - step / 2) if has_tail else values, bins=edges)
    last = len(images) - 1
    return [
        Bin(edges[position], edges[position + 1], int(count), tail=has_tail and position == last)
        for position, count in enumerate(images)
    ]


def histogram(
    title: str, bins: Sequence[Bin], *, format_value: Format = lambda value: f"{value:,.0f}", labels: int = 6
) -> Markup:
    """A bar chart with one bar per bin.

    Args:
        title: for screen readers.
        format_value: formats a value.
        labels: maximum number of bars with a label.
    """
    top = max((interval.count for interval in bins), default=0) or 1
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    bar_slot = width / max(len(bins), 1)
    # Limits the width of a bar if there are few bins.
    bar = min(bar_slot - (1.5 if bar_slot > 6 else 0.5), 46)
    elements: list[Markup] = _grid(top)
    for position, interval in enumerate(bins):
        x = _LEFT + position * bar_slot + (bar_slot - bar) / 2
        bar_height = max(height * interval.count / top, 0.8 if interval.count else 0)
        tooltip = tag("title", f"{_range(interval, format_value)}: {interval.count:,}")
        elements.append(
            tag(
                "rect",
                tooltip,
                class_="bar-fill",
                x=f"{x:.1f}",
                y=f"{_TOP + height - bar_height:.1f}",
                width=f"{bar:.1f}",
                height=f"{bar_height:.1f}",
                rx=min(2, round(bar / 4, 1)),
            )
        )
    for position in _label_positions(len(bins), labels):
        middle = _LEFT + (position + 0.5) * bar_slot
        interval = bins[position]
        words = f"{format_value(interval.low)}+" if interval.tail else format_value(interval.low)
        # The last label must not extend beyond the picture.
        right_aligned = bar_slot < _NARROW_BAR and position + 1 == len(bins)
        x = middle + bar_slot / 2 if right_aligned else middle
        elements.append(_text(words, x, _TOP + height + 17, anchor="end" if right_aligned else "middle"))
    return _svg(title, elements)


def curve(title: str, counts: Sequence[int], *, x_label: str) -> Markup:
    """Counts by rank on a logarithmic scale, which shows the length of the tail.

    Args:
        counts: descending.
    """
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    powers = max(1, math.ceil(math.log10(max(counts[0], 2))))
    positions = sorted(
        {round(position) for position in np.linspace(0, len(counts) - 1, min(len(counts), 160)).tolist()}
    )

    def y_of(count: int) -> float:
        return _TOP + height * (1 - math.log10(max(count, 1)) / powers)

    points = [
        f"{_LEFT + width * position / max(len(counts) - 1, 1):.1f},{y_of(counts[position]):.1f}"
        for position in positions
    ]
    bottom = _TOP + height
    elements = []
    for power in range(powers + 1):
        y = y_of(10**power)
        elements += [_rule(y), _text(_short_count(10**power), _LEFT - 6, y + 3.5, anchor="end")]
    elements += [
        tag("polygon", class_="area-fill", points=f"{_LEFT},{bottom} {' '.join(points)} {_LEFT + width},{bottom}"),
        tag("polyline", class_="line", points=" ".join(points)),
        _text("1", _LEFT, bottom + 17),
        _text(x_label, _LEFT + width / 2, bottom + 17, anchor="middle"),
        _text(f"{len(counts):,}", _LEFT + width, bottom + 17, anchor="end"),
    ]
    return _svg(title, elements)


def _grid(top: int) -> list[Markup]:
    height = _HEIGHT - _TOP - _BOTTOM
    elements = []
    for value in _ticks(top):
        y = _TOP + height * (1 - value / top)
        elements += [_rule(y), _text(_short_count(value), _LEFT - 6, y + 3.5, anchor="end")]
    return elements


def _ticks(top: int) -> list[int]:
    """Zero, and a few round numbers up to `top`."""
    step = 10 ** math.floor(math.log10(top)) if top > 1 else 1
    for finer in (0.25, 0.5, 1, 2, 5):
        if step * finer >= 1 and top / (step * finer) <= 5.5:
            step = int(step * finer)
            break
    return list(range(0, top + 1, step))


def _label_positions(bins: int, limit: int) -> list[int]:
    """Indices of at most `limit` evenly spaced bins to label, including the first and the last."""
    if not bins:
        return []
    return sorted({round(position) for position in np.linspace(0, bins - 1, min(bins, limit)).tolist()})


def _range(interval: Bin, format_value: Format) -> str:
    if interval.low == interval.high:
        return format_value(interval.low)
    return (
        f"{format_value(interval.low)} and more"
        if interval.tail
        else f"{format_value(interval.low)} to {format_value(interval.high)}"
    )


def _short_count(count: float) -> str:
    """A count in short form: 1,200 is 1.2k."""
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:.0f}"


def _rule(y: float) -> Markup:
    return tag("line", class_="rule", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}")


def _text(words: str, x: float, y: float, *, anchor: str = "start") -> Markup:
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _svg(title: str, elements: Sequence[Markup]) -> Markup:
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return tag("svg", list(elements), viewBox=box, role="img", aria_label=title, class_="chart")
