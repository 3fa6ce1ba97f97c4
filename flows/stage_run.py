"""The stages of a run: submits them to Prefect, waits for them, publishes and cleans up.

A flow opens a `StageRun` and submits stages. A stage starts when its inputs are ready, so independent stages run
concurrently. At its end, also after an error, the block waits for all stages, publishes the results to Prefect's UI and
releases resources.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import prefect.runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.planned_run import current_plan
from flows.preflight import check_ready, open_store
from flows.run_board import RunBoard, StageRow, current_board
from flows.second_signal import count_every_signal
from flows.stage_failures import StagesFailedError
from flows.stage_task import NOTHING_NEW, Accept, StageResult, accept_any, stage_task
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config
from pipeline.errors import WorkError, listed
from pipeline.html.markdown import code, table
from pipeline.left_over import sweep
from pipeline.printable import printable
from pipeline.service_url import shown_url
from pipeline.stage import Stage
from pipeline.training.interruption import is_training, request_stop

# From a stop until the checkpoint of a training, which it writes after its current step; that may take many seconds.
# Prefect kills a cancelled run 30 s after SIGTERM.
_CHECKPOINT_WITHIN_S = 60.0
_CHECKPOINT_WITHIN_S_OF_SIGTERM = 20.0
# After that, for the stages to end. A training ends those of Ray's workers that have not answered in this time.
_STAGES_END_WITHIN_S = 8.0
_POLL_S = 0.1

TASK_RUNNER: Any = ThreadPoolTaskRunner()
"""Runs a flow's stages in threads of its process; a stage that waits for its inputs occupies one."""

StageHandle = StageResult | PrefectFuture[Any]
FlowResult = Any
"""The return value of a flow: a RunSummary, or a Prefect State that contains one."""


@dataclass(frozen=True)
class RunSummary:
    """The results of a run, in the order in which its stages were submitted."""

    flow: str
    results: tuple[StageResult, ...]

    @property
    def nothing_new(self) -> bool:
        """Whether the source had nothing new and all other stages were cached."""
        return any(result.nothing_new for result in self.results) and all(result.cached for result in self.results)

    def of_stage(self, stage: str) -> list[StageResult]:
        return [result for result in self.results if result.reference.startswith(f"{stage}/")]


class StageRun:
    """Submits stages and waits for them."""

    def __init__(self, flow: str, store: ArtifactStore, board: RunBoard) -> None:
        self.flow = flow
        self.store = store
        self.board = board
        self._futures: dict[str, PrefectFuture[Any]] = {}

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
        inputs: Mapping[str, StageHandle] | None = None,
        *,
        label: str = "",
        after: Sequence[StageHandle] = (),
        accept: Accept = accept_any,
    ) -> StageHandle:
        """Submits a stage; returns at once.

        Args:
            after: stages that must succeed before it begins, though it does not read their artifacts.
            accept: called with the artifact; an exception fails the stage in this run.
        """
        label = label or stage.name
        self.board.announce(label)
        task = stage_task.with_options(name=stage.name, task_run_name=label)
        self._futures[label] = task.submit(
            label,
            stage,
            config,
            dict(inputs or {}),
            self.store,
            self.board,
            accept,
            return_state=False,
            wait_for=list(after),
        )
        return self._futures[label]

    def leave_out(self, label: str, reason: str) -> None:
        """Records why a stage that the parameters ask for is not run, for the run's log and its summary."""
        self.board.notes[label] = f"left out: {reason}"
        get_run_logger().warning("%s: left out: %s", label, reason)

    def wait(self) -> RunSummary:
        """Waits for every stage.

        Raises:
            Exception: the error of the stage that failed.
            StagesFailedError: several failed.
        """
        for future in self._futures.values():
            future.wait()
        errors: dict[str, Exception] = {}
        for label, future in self._futures.items():
            if future.state.is_failed() or future.state.is_crashed():
                error = future.state.result(raise_on_failure=False)
                errors[label] = error if isinstance(error, Exception) else WorkError(f"{label}: {future.state.message}")
        if len(errors) > 1:
            raise StagesFailedError(errors) from next(iter(errors.values()))
        for error in errors.values():
            raise error
        return self.summary()

    def stop(self, checkpoint_within_s: float = _CHECKPOINT_WITHIN_S) -> None:
        """Stops running stages: trainings with a checkpoint, then other stages at their next progress report.

        Args:
            checkpoint_within_s: how long trainings may take for it; not waited for if there is none.
        """
        # On SIGTERM, Ray's core sets an alarm that aborts the process 3 s later, before a checkpoint is written.
        signal.alarm(0)
        trains = request_stop(checkpoint_within_s) > 0
        deadline = time.monotonic() + (checkpoint_within_s + _STAGES_END_WITHIN_S if trains else 0.0)
        # A stage that stops at its next report must not be the training, so the others go on until it has ended.
        self.board.stop(checkpoint_within_s + _STAGES_END_WITHIN_S if trains else 0.0)
        _say_waiting(self.board)
        while is_training() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self.board.stop()
        deadline = min(deadline, time.monotonic() + _STAGES_END_WITHIN_S)
        for future in self._futures.values():
            future.wait(max(deadline - time.monotonic(), 0.0))

    def summary(self) -> RunSummary:
        """The results of the stages that have succeeded."""
        ended = [future.state.result() for future in self._futures.values() if future.state.is_completed()]
        return RunSummary(self.flow, tuple(ended))

    def result(self) -> FlowResult:
        """The summary; if there was nothing new, in a Prefect state named NOTHING_NEW."""
        summary = self.summary()
        if not summary.nothing_new:
            return summary
        unchanged = next(result for result in summary.results if result.nothing_new)
        return Completed(name=NOTHING_NEW, message=f"{unchanged.reference} is up to date", data=summary)


@contextmanager
def stage_run(flow: str, parameters: Config, *, tracked: bool = True) -> Iterator[StageRun]:
    """A run of stages for a flow; checks the parameters first. Within `planning`, a PlannedRun.

    Args:
        tracked: its stages write to MLflow, whose database must be created before they run concurrently.
    Raises:
        InputError: a run with these parameters cannot start here; nothing was started.
    """
    if (planned := current_plan()) is not None:
        yield cast(StageRun, planned)
        return
    store, board = open_store(), current_board()
    # The shell has checked them already, before it started the Prefect server.
    if board.checked != parameters:
        check_ready(parameters, store)
    sweep(store)
    if tracked:
        from pipeline.training.tracking import ensure_tracking_uri

        ensure_tracking_uri(store)
    run = StageRun(flow, store, board)
    run.board.flow_run_id = prefect.runtime.flow_run.id
    with count_every_signal():
        try:
            yield run
            for result in run.wait().of_stage("run-report"):
                if not result.cached:
                    _log_report(flow, result, store)
        except BaseException as error:
            # Prefect raises a signal of its own for SIGTERM.
            by_sigterm = not isinstance(error, KeyboardInterrupt | Exception)
            run.stop(_CHECKPOINT_WITHIN_S_OF_SIGTERM if by_sigterm else _CHECKPOINT_WITHIN_S)
            raise
        finally:
            _end_ray(board)
            board.set_phase("recording the run")
            _say_waiting(board)
            board.close()
            try:
                _publish(flow, run)
            except Exception as error:
                # A missing server must not hide the run's own error.
                get_run_logger().warning("the run's summary was not published: %s", error)


def _log_report(flow: str, result: StageResult, store: ArtifactStore) -> None:
    from pipeline.training.tracking import log_report

    tags = {"tutelage.flow": flow, "tutelage.report": result.reference}
    log_report(store, result.artifact(store).path("report.html"), name=f"{flow} report", tags=tags)


def _say_waiting(board: RunBoard) -> None:
    if running := board.running():
        board.set_phase(f"stopping: waiting for {listed(running)}; Ctrl-C again ends the run at once")


def _end_ray(board: RunBoard) -> None:
    # Only if a stage of this process used Ray: importing it takes a second.
    ray_cluster = sys.modules.get("pipeline.ray_cluster")
    if ray_cluster is not None and ray_cluster.is_started():
        board.set_phase("stopping: ending Ray" if board.stopping else "ending Ray")
        ray_cluster.shutdown()


def _publish(flow: str, run: StageRun) -> None:
    """Publishes the run as a table and as Markdown in Prefect's UI."""
    rows = run.board.rows()
    references = {result.label: result.reference for result in run.summary().results}
    create_table_artifact(
        key=f"{flow}-stages",
        table=[_cells(row, references.get(row.label, "")) for row in rows],
        description=f"Stages of {flow}",
    )
    cells = [(row.label, row.state, f"{row.seconds or 0:.1f}", row.headline) for row in rows]
    lines = [f"# {flow}", "", *table(("stage", "state", "seconds", "result"), cells, right=(False, False, True, False))]
    lines += ["", f"Store: {code(shown_url(run.store.storage.url))}"]
    create_markdown_artifact(key=f"{flow}-summary", markdown="\n".join(lines), description=f"Summary of {flow}")


def _cells(row: StageRow, reference: str) -> dict[str, Any]:
    seconds = None if row.seconds is None else round(row.seconds, 1)
    return {
        "stage": row.label,
        "state": row.state,
        "seconds": seconds,
        "result": printable(row.headline),
        "artifact": reference,
    }
