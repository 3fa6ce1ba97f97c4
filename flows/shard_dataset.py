"""shard-dataset: writes a source of images as shards, an index and a data card."""

from __future__ import annotations

from prefect import flow

from flows.leak_check import check_leaks
from flows.parameters import ShardDatasetParameters
from flows.presets import default_parameters
from flows.shards_of_run import make_shards
from flows.stage_run import TASK_RUNNER, FlowResult, stage_run

_DEFAULT: ShardDatasetParameters = default_parameters(ShardDatasetParameters)


@flow(name="shard-dataset", task_runner=TASK_RUNNER)
def shard_dataset(parameters: ShardDatasetParameters = _DEFAULT) -> FlowResult:
    """Shard the source, or combine several data sets; check for leaks if configured."""
    with stage_run("shard-dataset", parameters, tracked=False) as run:
        shards = make_shards(run, parameters.data, parameters.mixture)
        check_leaks(run, parameters, shards)
    return run.result()
