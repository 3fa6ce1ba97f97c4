"""The shards of a run: an existing artifact, a mixture of data sets, or a source sharded whole or as a delta to a base.

If the source has nothing that the base lacks, the result is the base itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from flows.stage_run import StageHandle, StageRun
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.deltas.delta_base import find_base
from pipeline.sharding.mixture.stage import MixDatasets, MixDatasetsConfig
from pipeline.sharding.stage import ShardDataset


def make_shards(
    run: StageRun, data: ShardingConfig, mixture: Mapping[str, str], existing: str | None = None
) -> StageHandle:
    """Submits the stage that gives a flow its shards.

    Args:
        data: the source, used without `mixture` and `existing`.
        mixture: name of a data set -> STAGE/KEY of its shards; empty: none.
        existing: STAGE/KEY of existing shards; takes precedence over both.
    """
    if (artifact := run.existing(existing)) is not None:
        return artifact
    if mixture:
        data_sets = {
            name: data_set for name, reference in mixture.items() if (data_set := run.existing(reference)) is not None
        }
        return run.submit(MixDatasets(), MixDatasetsConfig(), data_sets)
    config = data.resolved()
    base = find_base(config, run.store)
    artifact = None if base is None else run.existing(base.artifact.name)
    return run.submit(ShardDataset(), config, {} if artifact is None else {"base": artifact})
