"""The stage join-columns in a flow: there only if the parameters ask for it, an input only of what reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flows.stage_run import Made, StageRun
from pipeline.config import Config
from pipeline.contrastive.build_ontology import OntologyConfig
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.sharding.format.choice import reads_columns
from pipeline.sharding.joining.stage import JoinColumns, JoinColumnsConfig


@dataclass(frozen=True)
class JoinedInput:
    """The joined columns of a run; `made` is None where there are none."""

    made: Made | None

    @classmethod
    def of(cls, run: StageRun, columns: JoinColumnsConfig | None, shards: Made) -> JoinedInput:
        """Asks for the columns that the parameters name."""
        return cls(None if columns is None else run.make(JoinColumns(), columns.resolved(), {"shards": shards}))

    def beside(self, inputs: Mapping[str, Made], config: Config) -> dict[str, Made]:
        """The inputs of a stage, with the columns if its config reads them: others are not made anew for them."""
        if self.made is None or not reads_columns(config):
            return dict(inputs)
        return {**inputs, "columns": self.made}


def ontology_of(ontology: OntologyConfig, clip: ContrastiveConfig) -> OntologyConfig:
    """The ontology of the captions and samples that are trained on."""
    return ontology.model_copy(update={"captions_from": clip.captions_from, "keep": clip.keep})
