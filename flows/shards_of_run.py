"""The shards of a run: made from the source, or added to a base; the base itself where the source has nothing new."""

from __future__ import annotations

from flows.stage_run import Made, StageRun
from pipeline.sharding.base import find_base
from pipeline.sharding.stage import ShardDataset, ShardingConfig


def make_shards(run: StageRun, data: ShardingConfig) -> Made:
    """Asks for the shards of a source."""
    config = data.resolved()
    base = find_base(config, run.store)
    named = None if base is None else run.named(base.artifact.uri)
    return run.make(ShardDataset(), config, {} if named is None else {"base": named})
