"""The shards of a run: named, put together from several data sets, made from a source, or added to a base.

Where the source has nothing that the base lacks, the base itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from flows.stage_run import Made, StageRun
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.deltas.delta_base import find_base
from pipeline.sharding.mixture.stage import MixDatasets, MixDatasetsConfig
from pipeline.sharding.stage import ShardDataset


def make_shards(run: StageRun, data: ShardingConfig, mixture: Mapping[str, str], named: str | None = None) -> Made:
    """Asks for the shards that a flow works on.

    Args:
        data: what is sharded, if nothing else is said.
        mixture: name of a data set -> STAGE/KEY of its shards; empty: none.
        named: STAGE/KEY, which goes before both.
    """
    if (found := run.named(named)) is not None:
        return found
    if mixture:
        parts = {name: part for name, reference in mixture.items() if (part := run.named(reference)) is not None}
        return run.make(MixDatasets(), MixDatasetsConfig(), parts)
    config = data.resolved()
    base = find_base(config, run.store)
    found = None if base is None else run.named(base.artifact.uri)
    return run.make(ShardDataset(), config, {} if found is None else {"base": found})
