"""`tutelage replay`: runs one step of a training again, exactly, and shows what it computed."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.progress_line import progress_line
from flows.preflight import open_store
from pipeline.config import Config
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.stage import PretrainClip
from pipeline.counted import counted
from pipeline.distillation.config import DistillationConfig
from pipeline.distillation.stage import DistillStudent
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.recorded_training import RecordedTraining, TrainingStage, recorded_training
from pipeline.training.replay import replay
from pipeline.training.stage import TrainTeacher

_STAGES: dict[str, tuple[TrainingStage, type[Config]]] = {
    TrainTeacher.name: (TrainTeacher(), ClassificationConfig),
    DistillStudent.name: (DistillStudent(), DistillationConfig),
    PretrainClip.name: (PretrainClip(), ContrastiveConfig),
}
_IDS = 8  # sample ids that are shown; --json has all


def replay_step(reference: str, step: int, *, as_json: bool) -> int:
    """Prints what the step computes; returns 1 if a log entry or the saved batch differs from it, else 0.

    Raises:
        InputError: there is no such training or step.
    """
    recorded = recorded_training(open_store(), reference, _STAGES)
    recorded.check(step)
    print(_beginning(recorded, step), file=sys.stderr, flush=True)
    with progress_line("replay") as progress:
        report = replay(recorded, step, progress)
    if as_json:
        print(json.dumps({"artifact": recorded.name, **_json_numbers(report)}, indent=1))
    else:
        _print(recorded.name, report)
    return 0 if _is_same(report) else 1


def _beginning(recorded: RecordedTraining, step: int) -> str:
    start = recorded.start(step)
    origin = f"the checkpoint after {counted(start, 'step')}" if start else "the start"
    return f"{recorded.name}: repeats {counted(step + 1 - start, 'step')} from {origin}"


def _is_same(report: dict[str, Any]) -> bool:
    entries_equal = all(entry["equal"] for entry in report["entries"])
    return entries_equal and all(batch in (None, "equal") for batch in report["saved_batches"])


def _print(name: str, report: dict[str, Any]) -> None:
    ids = report["ids"]
    rows = {
        "loss": _number(report["loss"]),
        "gradient norm": _number(report["gradient_norm"]),
        "learning rate": _number(report["learning_rate"]),
        "samples": f"{len(ids):,}: {', '.join(map(str, ids[:_IDS]))}{', ...' if len(ids) > _IDS else ''}",
        "not finite": _nonfinite(report),
        "log entries": _entries(report),
        "saved batch": _saved_batches(report["saved_batches"]),
        "device": f"{report['device']}, but it was trained on {report['trained_on']}" if "trained_on" in report else "",
    }
    console = Console()
    console.print(Text(f"{name}, step {report['step']:,}", style="bold"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for row_name, value in rows.items():
        if value:
            table.add_row(row_name, Text(value))
    console.print(table)
    layers = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    layers.add_column("layer")
    layers.add_column("gradient norm", justify="right")
    for layer, norm in report["layers"].items():
        layers.add_row(Text(layer), Text(_number(norm)))
    console.print(layers)


def _nonfinite(report: dict[str, Any]) -> str:
    if report["finite"]:
        return ""
    if not report["weights_finite"]:
        return "the weights were not finite before this step"
    found, rank = report["first_nonfinite"], report["first_nonfinite_rank"]
    if found is None:
        return "only the gradient: the output of every module is finite"
    return f"first in the output of {found}" + (f", on rank {rank}" if rank else "")


def _entries(report: dict[str, Any]) -> str:
    if not report["entries"]:
        return "none was stored for these steps"
    lines = []
    for entry in report["entries"]:
        differing = {name: pair for name, pair in entry["values"].items() if pair[0] != pair[1]}
        words = [f"{name} is {_number(pair[1])}, was {_number(pair[0])}" for name, pair in differing.items()]
        result = "equal" if entry["equal"] and not words else "; ".join(words)
        if entry["equal"] and words:
            result += ": the training was resumed within these steps"
        lines.append(f"after step {entry['step'] - 1:,}: {result}")
    return "\n".join(lines)


def _saved_batches(batches: list[str | None]) -> str:
    if all(batch is None for batch in batches):
        return ""
    if all(batch == "equal" for batch in batches):
        return "equal"
    return "; ".join(f"rank {rank}: {'none' if batch is None else batch}" for rank, batch in enumerate(batches))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _json_numbers(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _json_numbers(entry) for name, entry in value.items()}
    return [_json_numbers(entry) for entry in value] if isinstance(value, list) else value
