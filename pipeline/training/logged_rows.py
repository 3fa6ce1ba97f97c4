"""Compares the log entries of a training (metrics.jsonl) with those of a replay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# Of the last step of an entry: equal bits of them mean equal bits of every step before.
_EXACT = ("train/gradient_norm", "lr")
_UNEQUAL = ("train/images_per_s", "train/data_wait", "train/mfu", "train/skipped_steps")

Rows = Sequence[dict[str, Any]]


def entries(rows: Rows) -> list[dict[str, Any]]:
    """The log entries among the rows, which have evaluations and refreshes too."""
    return [row for row in rows if "lr" in row]


def entry_interval(rows: Rows) -> int | None:
    """The number of steps between log entries; None without one. The last one may follow sooner."""
    steps = [row["step"] for row in entries(rows)]
    return math.gcd(*steps[:-1]) if len(steps) > 1 else (steps[0] if steps else None)


def entry_after(rows: Rows, step: int) -> int | None:
    """The number of steps at the first log entry that includes `step`, which counts from 0."""
    return next((row["step"] for row in entries(rows) if row["step"] > step), None)


def compare_entries(logged: Rows, replayed: Rows, start: int) -> list[dict[str, Any]]:
    """One result for each replayed log entry that was logged too.

    Means over the steps of an entry are compared if the replay began before the first of them, at `start` steps. The
    original run may itself have been resumed within them, so that its means are over fewer steps: they do not decide.

    Returns:
        "step"; "equal": whether gradient norm and learning rate of the entry's last step are; "values": name ->
        [logged, replayed].
    """
    by_step = {row["step"]: row for row in entries(logged)}
    results, previous = [], 0
    before = [row["step"] for row in entries(logged)]
    for row in entries(replayed):
        step = row["step"]
        if step not in by_step:
            continue
        previous = max((earlier for earlier in before if earlier < step), default=0)
        names = [name for name in row if name in _EXACT or (start <= previous and _is_mean(name))]
        values = {name: [by_step[step].get(name), row[name]] for name in names}
        equal = all(values[name][0] == values[name][1] for name in _EXACT if name in values)
        results.append({"step": step, "equal": equal, "values": values})
    return results


def _is_mean(name: str) -> bool:
    return name.startswith("train/") and name not in _UNEQUAL
