"""The stage join-columns in a flow: runs only if the parameters ask for it; an input of the stages that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flows.stage_run import StageHandle, StageRun
from pipeline.config import Config
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.ontology_config import OntologyConfig
from pipeline.sharding.format.column_options import reads_columns
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.sharding.joining.stage import JoinColumns


@dataclass(frozen=True)
class JoinedInput:
    """The joined columns of a run; `handle` is None if the run has none."""

    handle: StageHandle | None

    @classmethod
    def submit(cls, run: StageRun, columns: JoinColumnsConfig | None, shards: StageHandle) -> JoinedInput:
        """Submits the stage, if the parameters name columns."""
        return cls(None if columns is None else run.submit(JoinColumns(), columns.resolved(), {"shards": shards}))

    def added_to(self, inputs: Mapping[str, StageHandle], config: Config) -> dict[str, StageHandle]:
        """The inputs of a stage, with the columns only if its config reads them, since an input changes the key."""
        if self.handle is None or not reads_columns(config):
            return dict(inputs)
        return {**inputs, "columns": self.handle}


def ontology_config_for(ontology: OntologyConfig, clip: ContrastiveConfig) -> OntologyConfig:
    """The ontology config, restricted to the captions and samples that `clip` trains on."""
    return ontology.model_copy(update={"captions_from": clip.captions_from, "keep": clip.keep})
