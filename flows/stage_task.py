"""A stage as a Prefect task: takes and returns references to artifacts; its state is Cached on a cache hit.

Prefect's own caching and result persistence are off: artifacts are the cache.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import prefect.runtime
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.run_board import RunBoard, StageState
from flows.stage_failures import error_line
from flows.stage_line import plain_line
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config
from pipeline.errors import TutelageError
from pipeline.headline import headline
from pipeline.stage import Stage, run_stage
from pipeline.training.interruption import StoppedError

NOTHING_NEW = "Nothing new"
_LOG_EVERY_S = 10.0


@dataclass(frozen=True)
class StageResult:
    """The result of a stage: a reference to its artifact, and its summary.

    Attributes:
        label: its name in this run.
        reference: the artifact's `name`, STAGE/KEY.
        cached: the artifact was already in the store.
        seconds: duration of the stage, in this run or in the one that built the artifact.
        summary: the artifact's summary.
        nothing_new: the stage had nothing to add to one of its inputs; the artifact is that input.
    """

    label: str
    reference: str
    cached: bool
    seconds: float
    summary: dict[str, Any] = field(default_factory=dict)
    nothing_new: bool = False

    def artifact(self, store: ArtifactStore) -> Artifact:
        """The artifact, opened from the store."""
        return store.get(self.reference)


Accept = Callable[[Artifact], None]


def accept_any(artifact: Artifact) -> None:
    """Accepts every artifact: the default."""


def worth_repeating(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Whether to retry a failed stage: only in a deployment, and not after a TutelageError.

    In the shell, the user reads the error and decides. A deployment runs unattended, and a network outage may be over.
    """
    error = state.result(raise_on_failure=False)
    return prefect.runtime.deployment.id is not None and not isinstance(error, TutelageError)


@task(
    cache_policy=NO_CACHE, persist_result=False, retries=1, retry_delay_seconds=20, retry_condition_fn=worth_repeating
)
def stage_task(
    label: str,
    stage: Stage[Any],
    config: Config,
    inputs: Mapping[str, Any],
    store: ArtifactStore,
    board: RunBoard,
    accept: Accept = accept_any,
) -> StageResult | State[StageResult]:
    """The stage's artifact, from the store or built now; reports to the board and to the run's log.

    Args:
        inputs: name -> StageResult; Prefect replaces submitted futures by their results.
        accept: called with the artifact; an exception fails the stage in this run, but the artifact stays committed.
    """
    log = _run_logger()
    board.begin(label)
    log.info("%s: started", label)
    try:
        artifacts = {name: result.artifact(store) for name, result in inputs.items()}
        progress = _BoardProgress(label, board, log)
        artifact = run_stage(stage, config, artifacts, store=store, progress=progress)
        accept(artifact)
    except StoppedError as error:
        board.end(label, "stopped", headline=error_line(error))
        raise
    except Exception as error:
        board.end(label, "failed", headline=error_line(error))
        raise
    except BaseException:
        board.end(label, "stopped")
        raise
    nothing_new = artifact.name in {input.name for input in artifacts.values()}
    message = f"{artifact.name} is up to date" if nothing_new else headline(artifact.summary)
    state: StageState = "nothing new" if nothing_new else "cached" if artifact.cached else "done"
    board.end(label, state, headline=message)
    log.info("%s: %s, %s, %s", label, state, artifact.name, message)
    result = StageResult(label, artifact.name, artifact.cached, artifact.seconds, artifact.summary, nothing_new)
    if nothing_new:
        return Completed(name=NOTHING_NEW, message=message, data=result)
    if artifact.cached:
        return Completed(name="Cached", message=f"{artifact.name} was already in the store", data=result)
    return result


class _BoardProgress:
    """A Progress that writes to the board at once and to the run's log every 10 seconds."""

    def __init__(self, label: str, board: RunBoard, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self.label = label
        self.board = board
        self.log = log
        self._logged_at = time.monotonic()

    def __call__(self, *, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        row = self.board.report(self.label, step, total, note, numbers)
        if time.monotonic() - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = time.monotonic()
            self.log.info("%s", plain_line(row, max_numbers=None))


def _run_logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    """The logger of the Prefect run, shown in Prefect's UI and usable from any thread; outside a run, our own."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("tutelage")
