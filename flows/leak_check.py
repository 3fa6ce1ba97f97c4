"""The stage check-leaks in a flow: runs only if the parameters ask for it; training waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from flows.stage_run import StageHandle, StageRun
from pipeline.leaks.bounds import LeakCheckConfig
from pipeline.leaks.stage import CheckLeaks


def check_leaks(
    run: StageRun,
    config: LeakCheckConfig | None,
    shards: StageHandle,
    against: str | None,
    *,
    after: Sequence[StageHandle] = (),
) -> dict[str, StageHandle]:
    """Submits the check; returns {"leaks": its handle}, empty if `config` is None.

    The findings are committed before the bounds are checked, so that they can be read when a run stops.

    Args:
        against: STAGE/KEY of the shards of another data set.
    """
    if config is None:
        return {}
    other = run.existing(against)
    inputs = {"shards": shards} if other is None else {"shards": shards, "other": other}
    return {"leaks": run.submit(CheckLeaks(), config, inputs, accept=partial(config.check, in_flow=True), after=after)}
