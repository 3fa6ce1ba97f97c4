"""The plan of a stage, kept in the store beside what the stage then took: plans/STAGE-KEY.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.stage_line import clock
from pipeline.artifacts import ArtifactStore
from pipeline.atomic_files import atomic_write

if TYPE_CHECKING:
    from flows.stage_costs import StageCost
    from flows.stage_task import StageResult


def record(store: ArtifactStore, costs: Iterable[StageCost]) -> None:
    """Keeps the plan of each stage that is not cached and whose time is known."""
    for cost in costs:
        if cost.basis != "cached" and cost.seconds is not None:
            file = _file(store, cost.reference)
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, asdict(cost))


def plan_note(store: ArtifactStore, result: StageResult) -> str | None:
    """What a stage took beside its plan, in a sentence; it is written to the plan too.

    None: the stage had no plan, or was cached.
    """
    file = _file(store, result.reference)
    if result.cached or not file.exists():
        return None
    with suppress(OSError, ValueError, KeyError):
        plan = json.loads(file.read_text())
        planned = float(plan["seconds"])
        _write(file, {**plan, "took_s": round(result.seconds, 1)})
        return f"planned {clock(planned)}, took {clock(result.seconds)} ({result.seconds / max(planned, 0.1) - 1:+.0%})"
    return None


def _write(file: Path, plan: dict[str, Any]) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(plan, indent=1))


def _file(store: ArtifactStore, reference: str) -> Path:
    return store.local / "plans" / f"{reference.replace('/', '-')}.json"
