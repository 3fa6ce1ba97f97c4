"""shard-dataset: a source of images becomes shards, an index and a data card."""

from __future__ import annotations

from prefect import flow

from flows.leak_check import check_leaks
from flows.parameters import ShardDatasetParameters
from flows.presets import default_parameters
from flows.stage_run import SIDE_BY_SIDE, RunSummary, stages_of
from pipeline.sharding.stage import ShardDataset

_DEFAULT: ShardDatasetParameters = default_parameters(ShardDatasetParameters)


@flow(name="shard-dataset", task_runner=SIDE_BY_SIDE)
def shard_dataset(parameters: ShardDatasetParameters = _DEFAULT) -> RunSummary:
    """Read the source, split it by content, write shards, index and data card; check for leaks if asked to."""
    with stages_of("shard-dataset", parameters, tracked=False) as run:
        shards = run.make(ShardDataset(), parameters.data.resolved())
        check_leaks(run, parameters.leaks, shards, parameters.leaks_against)
    return run.summary()
