"""A run that is only planned: a flow submits its stages, which are noted with their keys and not run.

A stage's key depends on its config and on the keys of its inputs, so all are known before any stage has run. That a
source has nothing new is not: such a stage is noted as one to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from flows.stage_task import StageResult
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config
from pipeline.stage import Stage, key_of_names

_current: ContextVar[PlannedRun | None] = ContextVar("planned_run", default=None)


@dataclass(frozen=True)
class PlannedStage:
    """A stage that a flow submits.

    Attributes:
        reference: STAGE/KEY of the artifact that it makes.
        inputs: name -> STAGE/KEY.
        cached: the artifact is in the store.
    """

    label: str
    stage: Stage[Any]
    config: Config
    reference: str
    inputs: dict[str, str]
    cached: bool


class PlannedRun:
    """Takes the place of a StageRun in a flow."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store
        self.stages: list[PlannedStage] = []
        self.left_out: dict[str, str] = {}

    def existing(self, reference: str | None) -> StageResult | None:
        """The result for an existing artifact STAGE/KEY; None if `reference` is None."""
        if reference is None:
            return None
        artifact = self.store.resolve(reference)
        return StageResult(artifact.stage, artifact.name, True, artifact.seconds, artifact.summary)

    def input_of(self, result: StageResult | None, name: str) -> str | None:
        """STAGE/KEY of an input of a result's artifact; None without a result, or if it has no such input."""
        return result.artifact(self.store).manifest["inputs"].get(name) if result is not None else None

    def submit(
        self,
        stage: Stage[Any],
        config: Config,
        inputs: Mapping[str, StageResult] | None = None,
        *,
        label: str = "",
        after: Sequence[StageResult] = (),
        accept: Any = None,
    ) -> StageResult:
        """Notes a stage."""
        names = {name: result.reference for name, result in (inputs or {}).items()}
        reference = f"{stage.name}/{key_of_names(stage, config, names)}"
        found = self.store.find(reference)
        planned = PlannedStage(label or stage.name, stage, config, reference, names, found is not None)
        self.stages.append(planned)
        seconds, summary = (0.0, {}) if found is None else (found.seconds, found.summary)
        return StageResult(planned.label, reference, found is not None, seconds, summary)

    def leave_out(self, label: str, reason: str) -> None:
        """Notes why a stage that the parameters ask for is not run."""
        self.left_out[label] = reason

    def result(self) -> None:
        """A plan has no result."""


def current_plan() -> PlannedRun | None:
    """The plan for which a flow is called now; None: it is to run."""
    return _current.get()


@contextmanager
def planning(store: ArtifactStore) -> Iterator[PlannedRun]:
    """Within the block, the function of a flow (`flow.fn`) notes its stages in the result and runs none."""
    planned = PlannedRun(store)
    token = _current.set(planned)
    try:
        yield planned
    finally:
        _current.reset(token)
