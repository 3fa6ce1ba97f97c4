"""`tutelage plan`: what a run would cost, before it: time, memory, disk and money for each of its stages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.catalog import FlowEntry
from flows.cli.console import Console
from flows.cli.plan_record import record
from flows.cli.progress_line import progress_line
from flows.planned_run import planning
from flows.preflight import check_ready, open_store
from flows.stage_costs import CostEstimate, StageCost
from flows.stage_line import clock
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config
from pipeline.counted import counted
from pipeline.machine import memory_bytes


def plan(
    entry: FlowEntry, parameters: Config, origin: str, *, steps: int, price_per_hour: float | None, as_json: bool
) -> int:
    """Prints the cost of a run with these parameters, which is not started.

    Args:
        origin: origin of the parameters, for the display.
        steps: number of steps of the short trainings that are measured.
        price_per_hour: price of this machine for an hour, in any currency.
    Raises:
        InputError: such a run cannot start here.
    """
    store = open_store()
    check_ready(parameters, store)
    with planning(store) as planned:
        entry.load().fn(parameters)
    estimate = CostEstimate(store, steps=steps)
    with progress_line("plan") as progress:
        costs = [estimate.cost(stage, progress) for stage in planned.stages]
    record(store, costs)
    totals = _totals(costs, price_per_hour)
    if as_json:
        stages = [asdict(cost) for cost in costs]
        print(json.dumps({"flow": entry.name, "stages": stages, "left_out": planned.left_out, **totals}, indent=1))
        return 0
    console = Console()
    console.print(Text(f"{entry.name}, {origin}: a plan, nothing is run"))
    console.print(_table(costs))
    for line in _sentences(costs, totals, store):
        console.print(Text(line), soft_wrap=True)
    return 0


def _totals(costs: Sequence[StageCost], price_per_hour: float | None) -> dict[str, Any]:
    """The sums of the stages whose cost is known; the memory is that of the largest."""
    seconds = sum(cost.seconds or 0.0 for cost in costs)
    totals: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "memory_mb": max((cost.memory_mb or 0 for cost in costs), default=0),
        "disk_bytes": sum(cost.disk_bytes or 0 for cost in costs),
        "unknown": [cost.label for cost in costs if cost.seconds is None],
    }
    if price_per_hour is not None:
        totals["price"] = round(seconds / 3600 * price_per_hour, 2)
    return totals


def _table(costs: Sequence[StageCost]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("stage", "time", "memory", "disk", "from"):
        table.add_column(name, justify="right" if name in ("time", "memory", "disk") else "left")
    for cost in costs:
        table.add_row(
            Text(cost.label),
            Text("?" if cost.seconds is None else clock(cost.seconds)),
            Text("" if not cost.memory_mb else f"{cost.memory_mb:,} MB"),
            Text("" if not cost.disk_bytes else _megabytes(cost.disk_bytes)),
            Text(cost.basis),
        )
    return table


def _sentences(costs: Sequence[StageCost], totals: dict[str, Any], store: ArtifactStore) -> list[str]:
    unknown = totals["unknown"]
    words = [
        f"in total {clock(totals['seconds'])}",
        *([f"{totals['memory_mb']:,} MB of memory"] if totals["memory_mb"] else []),
        f"{_megabytes(totals['disk_bytes'])} of disk",
        *([f"a price of {totals['price']:,.2f}"] if "price" in totals else []),
    ]
    lines = [", ".join(words) + (f"; without {counted(len(unknown), 'stage')} of unknown cost" if unknown else "")]
    if all(cost.basis == "cached" for cost in costs):
        lines = ["every stage is cached: the run costs nothing"]
    memory, free = memory_bytes(), shutil.disk_usage(store.local).free
    if totals["memory_mb"] * 1e6 > memory:
        lines.append(f"too little memory: {memory / 1e6:,.0f} MB here; see docs/sizing.md")
    if totals["disk_bytes"] > free:
        lines.append(f"too little disk: {_megabytes(free)} free in {store.local}")
    return lines


def _megabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
