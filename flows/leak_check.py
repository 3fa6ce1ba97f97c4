"""The stage check-leaks in a flow: runs only if the parameters ask for it; training waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from flows.parameters import LifecycleParameters, ShardDatasetParameters, TrainTeacherParameters
from flows.stage_run import StageHandle, StageRun
from pipeline.leaks.stage import CheckLeaks

_Parameters = ShardDatasetParameters | TrainTeacherParameters | LifecycleParameters


def check_leaks(
    run: StageRun,
    parameters: _Parameters,
    shards: StageHandle,
    *,
    after: Sequence[StageHandle] = (),
) -> dict[str, StageHandle]:
    """Submits the check; returns {"leaks": its handle}, empty if the parameters have no check.

    The findings are committed before the bounds are checked, so that they can be read when a run stops.
    """
    config = parameters.leaks
    if config is None:
        return {}
    other = run.existing(parameters.leaks_against)
    inputs = {"shards": shards} if other is None else {"shards": shards, "other": other}
    accept = partial(config.check, in_flow=True, can_remove_near=can_remove_near(parameters))
    return {"leaks": run.submit(CheckLeaks(), config, inputs, accept=accept, after=after)}


def can_remove_near(parameters: _Parameters) -> bool:
    """Whether data.duplicates.near=remove would be accepted, and would drop near duplicates that the check finds.

    Sharding compares the images of one data set with each other; a delta reads only some of them and refuses it.
    """
    data = parameters.sharded_data
    if data is None or parameters.leaks_against is not None:
        return False
    return data.duplicates.near == "keep" and data.base is None
