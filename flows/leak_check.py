"""The stage check-leaks in a flow: there only if the parameters ask for it; training waits for it."""

from __future__ import annotations

from flows.stage_run import Made, StageRun
from pipeline.leaks.bounds import LeakCheckConfig
from pipeline.leaks.stage import CheckLeaks


def check_leaks(run: StageRun, config: LeakCheckConfig | None, shards: Made, against: str | None) -> dict[str, Made]:
    """Asks for the check, under the name "leaks"; nothing if none is wanted.

    The finding is committed before its bounds are held, so that whoever stopped by them can look at it.

    Args:
        against: the shards of another data set, by STAGE/KEY.
    """
    if config is None:
        return {}
    other = run.named(against)
    inputs = {"shards": shards} if other is None else {"shards": shards, "other": other}
    return {"leaks": run.make(CheckLeaks(), config, inputs, accept=config.hold)}
