"""The measures of a comparison as text, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.counted import counted
from pipeline.report.comparison_measures import SCORE, Measure
from pipeline.report.paired_evaluations import Comparison
from pipeline.report.wording import magnitude, percent, points

Costs = tuple[dict[str, float], dict[str, float]]

NO_INTERVAL = "no interval"
NO_INTERVAL_NOTE = "no interval: the measure is the same in every resample of these images"


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """A row of the comparison table, as text.

    Attributes:
        a_interval, b_interval: e.g. "54.3% to 59.8%", or `NO_INTERVAL`; "" for a cost.
    """

    name: str
    a: str
    b: str
    difference: str
    a_interval: str = ""
    b_interval: str = ""


def measure_rows(comparison: Comparison, costs: Costs | None) -> list[MeasureRow]:
    """The rows of the table: accuracies and the like, then size and latency.

    Args:
        costs: of A and B, from `image_cost`; None: not known.
    """
    rows = [_measure_row(measure) for measure in comparison.measures()]
    if costs is not None:
        rows += [
            _cost_row("parameters", costs, "parameters", lambda count: magnitude(int(count))),
            _cost_row("size", costs, "megabytes", lambda megabytes: f"{megabytes:.1f} MB"),
            _cost_row("latency, CPU", costs, "latency_ms", lambda milliseconds: f"{milliseconds:.1f} ms"),
        ]
    return rows


def data_sentence(comparison: Comparison) -> str:
    """The data on which the two are compared, and how many of their images are common."""
    a, b = comparison.a, comparison.b
    if comparison.has_only_common_samples:
        return f"on {counted(comparison.samples, 'image')}: {a.data_in_words}"
    return (
        f"on the {counted(comparison.samples, 'image')} that both have: A was evaluated on "
        f"{counted(len(a.columns['id']), 'image')} ({a.data_in_words}), B on "
        f"{counted(len(b.columns['id']), 'image')} ({b.data_in_words})"
    )


def _measure_row(measure: Measure) -> MeasureRow:
    is_score = measure.name == SCORE
    form = "{:.3f} to {:.3f}" if is_score else "{:.1%} to {:.1%}"
    intervals = (
        NO_INTERVAL if interval is None else form.format(*interval)
        for interval in (measure.a_interval, measure.b_interval)
    )
    if is_score:
        return MeasureRow(
            measure.name, f"{measure.a:.3f}", f"{measure.b:.3f}", f"{measure.difference:+.3f}", *intervals
        )
    return MeasureRow(
        measure.name, percent(measure.a), percent(measure.b), f"{points(measure.difference)} points", *intervals
    )


def _cost_row(name: str, costs: Costs, key: str, shown: Callable[[float], str]) -> MeasureRow:
    a, b = (cost[key] for cost in costs)
    return MeasureRow(name, shown(a), shown(b), f"{b / a:.2f} x" if a else "")
