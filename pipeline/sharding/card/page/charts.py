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
_BINS = 28
_MOST_SINGLE = 16
_TAIL = 0.995
_NARROW = 30

Spoken = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Bin:
    """The values in [low, high), or the single value `low` if both are equal."""

    low: float
    high: float
    count: int
    tail: bool = False


def binned(values: NDArray[Any], *, integers: bool = True) -> list[Bin]:
    """Histogram of values: one bin per value if there are few, else bins of equal width; the last may be a tail bin."""
    if not len(values):
        return []
    different, counts = np.unique(values, return_counts=True)
    if len(different) <= _MOST_SINGLE:
        return [Bin(float(value), float(value), int(count)) for value, count in zip(different, counts, strict=True)]
    low, high = float(different[0]), float(different[-1])
    usual = float(np.quantile(values, _TAIL, method="inverted_cdf"))
    tailed = high - low > 2 * (usual - low) > 0
    end = usual if tailed else high
    step = (end - low) / _BINS
    if integers:
        step = max(1.0, math.ceil(step))
    edges = [low + step * number for number in range(math.ceil((end - low) / step) + 1)]
    if edges[-1] <= end:
        edges.append(edges[-1] + step)
    found, _ = np.histogram(np.minimum(values, edges[-1] - step / 2) if tailed else values, bins=edges)
    last = len(found) - 1
    return [
        Bin(edges[place], edges[place + 1], int(count), tail=tailed and place == last)
        for place, count in enumerate(found)
    ]


def histogram(
    title: str, bins: Sequence[Bin], *, spoken: Spoken = lambda value: f"{value:,.0f}", labels: int = 6
) -> Markup:
    """A bar chart with one bar per bin.

    Args:
        title: for screen readers.
        spoken: formats a value.
        labels: maximum number of bars with a label.
    """
    top = max((one.count for one in bins), default=0) or 1
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    slot = width / max(len(bins), 1)
    # Limits the width of a bar if there are few bins.
    bar = min(slot - (1.5 if slot > 6 else 0.5), 46)
    parts: list[Markup] = _grid(top)
    for place, one in enumerate(bins):
        x = _LEFT + place * slot + (slot - bar) / 2
        tall = max(height * one.count / top, 0.8 if one.count else 0)
        told = tag("title", f"{_range(one, spoken)}: {one.count:,}")
        parts.append(
            tag(
                "rect",
                told,
                class_="bar-fill",
                x=f"{x:.1f}",
                y=f"{_TOP + height - tall:.1f}",
                width=f"{bar:.1f}",
                height=f"{tall:.1f}",
                rx=min(2, round(bar / 4, 1)),
            )
        )
    for place in _labelled(len(bins), labels):
        middle = _LEFT + (place + 0.5) * slot
        one = bins[place]
        words = f"{spoken(one.low)}+" if one.tail else spoken(one.low)
        # The last label must not extend beyond the picture.
        ends = slot < _NARROW and place + 1 == len(bins)
        x = middle + slot / 2 if ends else middle
        parts.append(_text(words, x, _TOP + height + 17, anchor="end" if ends else "middle"))
    return _svg(title, parts)


def curve(title: str, counts: Sequence[int], *, x_label: str) -> Markup:
    """Counts by rank on a logarithmic scale, which shows the length of the tail.

    Args:
        counts: descending.
    """
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    powers = max(1, math.ceil(math.log10(max(counts[0], 2))))
    places = sorted({round(place) for place in np.linspace(0, len(counts) - 1, min(len(counts), 160)).tolist()})

    def y_of(count: int) -> float:
        return _TOP + height * (1 - math.log10(max(count, 1)) / powers)

    points = [f"{_LEFT + width * place / max(len(counts) - 1, 1):.1f},{y_of(counts[place]):.1f}" for place in places]
    bottom = _TOP + height
    parts = []
    for power in range(powers + 1):
        y = y_of(10**power)
        parts += [_rule(y), _text(_short(10**power), _LEFT - 6, y + 3.5, anchor="end")]
    parts += [
        tag("polygon", class_="area-fill", points=f"{_LEFT},{bottom} {' '.join(points)} {_LEFT + width},{bottom}"),
        tag("polyline", class_="line", points=" ".join(points)),
        _text("1", _LEFT, bottom + 17),
        _text(x_label, _LEFT + width / 2, bottom + 17, anchor="middle"),
        _text(f"{len(counts):,}", _LEFT + width, bottom + 17, anchor="end"),
    ]
    return _svg(title, parts)


def _grid(top: int) -> list[Markup]:
    height = _HEIGHT - _TOP - _BOTTOM
    parts = []
    for value in _ticks(top):
        y = _TOP + height * (1 - value / top)
        parts += [_rule(y), _text(_short(value), _LEFT - 6, y + 3.5, anchor="end")]
    return parts


def _ticks(top: int) -> list[int]:
    """Zero, and a few round numbers up to `top`."""
    step = 10 ** math.floor(math.log10(top)) if top > 1 else 1
    for finer in (0.25, 0.5, 1, 2, 5):
        if step * finer >= 1 and top / (step * finer) <= 5.5:
            step = int(step * finer)
            break
    return list(range(0, top + 1, step))


def _labelled(bins: int, most: int) -> list[int]:
    """Indices of evenly spaced bins to label, including the first and the last."""
    if not bins:
        return []
    return sorted({round(place) for place in np.linspace(0, bins - 1, min(bins, most)).tolist()})


def _range(one: Bin, spoken: Spoken) -> str:
    if one.low == one.high:
        return spoken(one.low)
    return f"{spoken(one.low)} and more" if one.tail else f"{spoken(one.low)} to {spoken(one.high)}"


def _short(count: float) -> str:
    """A count in short form: 1,200 is 1.2k."""
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:.0f}"


def _rule(y: float) -> Markup:
    return tag("line", class_="rule", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}")


def _text(words: str, x: float, y: float, *, anchor: str = "start") -> Markup:
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return tag("svg", list(parts), viewBox=box, role="img", aria_label=title, class_="chart")
