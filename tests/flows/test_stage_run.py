"""A run of stages on a real Prefect server: side by side, cached states, failures, interruption."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field

from flows.parameters import ShardDatasetParameters
from flows.prefect_api import ask
from flows.run_board import RunBoard, use_board
from flows.stage_failures import StagesFailedError
from infra.local.servers import Server
from pipeline.artifacts import Artifact
from pipeline.config import Config
from pipeline.errors import InputError, WorkError
from pipeline.stage import Workspace

pytestmark = pytest.mark.servers


class Numbers(Config):
    """The parameters of the flows here."""

    seed: int = Field(0, description="Another seed makes other artifacts.")


_NUMBERS = Numbers()


class Step:
    """A stage that does what it is told."""

    version: ClassVar[int] = 1

    def __init__(self, name: str, act: Callable[[Workspace], None] = lambda work: None) -> None:
        self.name = name
        self.act = act

    def run(self, config: Config, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        work.progress(step=1, total=2)
        self.act(work)
        (work.output / "made.txt").write_text(self.name)
        return {"inputs": len(inputs)}


def fail(error: Exception) -> Callable[[Workspace], None]:
    def act(work: Workspace) -> None:
        raise error

    return act


@pytest.fixture
def run_flow(prefect: Server, tmp_path: Path) -> Iterator[Callable[..., RunBoard]]:
    """Runs a flow with the given body; gives its board, and the error it ended in."""
    from prefect import flow
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.stage_run import TASK_RUNNER, StageRun, stage_run

    def run(
        body: Callable[[StageRun], None],
        expect: type[BaseException] | None = None,
        *,
        says: str | None = None,
        given: Config = _NUMBERS,
        checked: Config | None = None,
    ) -> RunBoard:
        board = RunBoard(checked)

        @flow(name="steps", task_runner=TASK_RUNNER)
        def steps(parameters: Config) -> None:
            with stage_run("steps", parameters, tracked=False) as stages:
                body(stages)

        with use_board(board):
            if expect is None:
                steps(given)
            else:
                with pytest.raises(expect, match=says and re.escape(says)):
                    steps(given)
        return board

    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield run


def states(board: RunBoard) -> dict[str, str]:
    return {row.label: row.state for row in board.rows()}


def test_a_stage_that_is_there_shows_as_cached(run_flow: Callable[..., RunBoard], prefect: Server) -> None:
    def body(run: Any) -> None:
        first = run.submit(Step("first"), Numbers())
        run.submit(Step("second"), Numbers(), {"first": first})

    assert states(run_flow(body)) == {"first": "done", "second": "done"}
    again = run_flow(body)
    assert states(again) == {"first": "cached", "second": "cached"}
    assert task_states(prefect, again) == {"first": "Cached", "second": "Cached"}


def test_independent_stages_run_side_by_side(run_flow: Callable[..., RunBoard]) -> None:
    both = threading.Barrier(2, timeout=20)

    def body(run: Any) -> None:
        run.submit(Step("left", lambda work: both.wait() and None), Numbers())
        run.submit(Step("right", lambda work: both.wait() and None), Numbers())

    assert states(run_flow(body)) == {"left": "done", "right": "done"}


def test_a_failure_stops_what_depends_on_it_and_nothing_else(run_flow: Callable[..., RunBoard]) -> None:
    def body(run: Any) -> None:
        broken = run.submit(Step("broken", fail(WorkError("shard 3: damaged"))), Numbers())
        run.submit(Step("after"), Numbers(), {"broken": broken})
        run.submit(Step("beside", lambda work: time.sleep(0.3)), Numbers())

    board = run_flow(body, expect=WorkError)
    assert states(board) == {"broken": "failed", "after": "not run", "beside": "done"}
    assert board.rows()[0].headline == "shard 3: damaged"


def test_several_failures_are_all_in_the_error(run_flow: Callable[..., RunBoard]) -> None:
    def body(run: Any) -> None:
        run.submit(Step("left", fail(WorkError("shard 3: damaged"))), Numbers())
        run.submit(Step("right", fail(KeyError("x"))), Numbers())
        run.submit(Step("good"), Numbers())

    board = run_flow(
        body, expect=StagesFailedError, says="2 stages failed. left: shard 3: damaged; right: KeyError: 'x'"
    )
    assert states(board) == {"left": "failed", "right": "failed", "good": "done"}


def test_a_run_checks_its_parameters_before_any_stage_unless_the_shell_has(
    run_flow: Callable[..., RunBoard], tmp_path: Path
) -> None:
    """A deployment's run has no shell, and a check of the shell is for its own parameters only."""
    values = {"data": {"source": {"kind": "image_folder", "folder": str(tmp_path / "gone")}}}
    gone, other = ShardDatasetParameters.model_validate(values), ShardDatasetParameters()

    def body(run: Any) -> None:
        run.submit(Step("step"), Numbers())

    for checked in (None, other):
        assert states(run_flow(body, InputError, given=gone, checked=checked)) == {}
    assert states(run_flow(body, given=gone, checked=gone)) == {"step": "done"}


def test_the_error_of_the_stage_reaches_the_caller(run_flow: Callable[..., RunBoard]) -> None:
    run_flow(lambda run: run.submit(Step("picky", fail(InputError("no images"))), Numbers()), expect=InputError)
    run_flow(lambda run: run.submit(Step("defect", fail(KeyError("x"))), Numbers()), expect=KeyError)


def test_an_interrupt_ends_running_stages_at_their_next_word(run_flow: Callable[..., RunBoard]) -> None:
    def until_stopped(work: Workspace) -> None:
        for step in range(600):
            work.progress(step=step, total=600)
            time.sleep(0.05)

    def body(run: Any) -> None:
        long = run.submit(Step("long", until_stopped), Numbers())
        run.submit(Step("after"), Numbers(), {"long": long})
        time.sleep(0.3)
        raise KeyboardInterrupt

    started = time.monotonic()
    board = run_flow(body, expect=KeyboardInterrupt)
    assert states(board) == {"long": "stopped", "after": "not run"}
    assert time.monotonic() - started < 20


def test_a_stop_says_what_it_waits_for(run_flow: Callable[..., RunBoard]) -> None:
    phases: list[tuple[str, bool]] = []
    ready = threading.Event()

    def body(run: Any) -> None:
        def deaf(work: Workspace) -> None:
            ready.set()
            while not run.board.stopping or not run.board.phase:
                time.sleep(0.05)
            phases.append((run.board.phase, run.board.stopping))

        run.submit(Step("deaf", deaf), Numbers(seed=7))
        ready.wait(20)
        raise KeyboardInterrupt

    board = run_flow(body, expect=KeyboardInterrupt)
    assert phases == [("stopping: waiting for deaf; Ctrl-C again ends the run at once", True)]
    assert board.phase in (phases[0][0], "recording the run")


def test_the_log_of_a_run_counts_nothing_where_there_is_nothing_to_count_and_has_the_time_left(
    run_flow: Callable[..., RunBoard], prefect: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.stage_task._LOG_EVERY_S", 0.0)

    def report(work: Workspace) -> None:
        work.progress(note="starting Ray")
        for step in range(1, 16):
            work.progress(step=step, total=100, loss=0.5)
            time.sleep(0.1)

    board = run_flow(lambda run: run.submit(Step("train", report), Numbers(seed=9)))
    deadline = time.monotonic() + 30
    lines = log_of(prefect, board)
    while not any(line.startswith("train: done") for line in lines):
        assert time.monotonic() < deadline, lines
        time.sleep(0.3)
        lines = log_of(prefect, board)
    assert "train: starting Ray" in lines
    (last,) = [line for line in lines if line.startswith("train: 15/100")]
    assert re.fullmatch(r"train: 15/100, loss 0\.500, 0:\d\d left", last)


def log_of(server: Server, board: RunBoard) -> list[str]:
    found = ask(server.url, "logs/filter", {"logs": {"flow_run_id": {"any_": [board.flow_run_id]}}})
    return [one["message"] for one in found]


def test_a_run_leaves_a_table_and_a_summary_in_prefect(run_flow: Callable[..., RunBoard], prefect: Server) -> None:
    board = run_flow(lambda run: run.submit(Step("only"), Numbers(seed=5)))
    found = ask(prefect.url, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [board.flow_run_id]}}})
    kinds = {one["type"]: one["data"] for one in found}
    assert '"stage": "only"' in kinds["table"]
    assert "| only | done |" in kinds["markdown"]


def task_states(server: Server, board: RunBoard, within_s: float = 45) -> dict[str, str]:
    """Label -> state name of the task runs of a board's flow run, once all have ended."""
    deadline = time.monotonic() + within_s
    while True:
        runs = ask(server.url, "task_runs/filter", {"flow_runs": {"id": {"any_": [board.flow_run_id]}}})
        # Events make the rows: one may be there before the event that brings its state.
        found = {run["name"]: (run["state"] or {"name": "Pending"})["name"] for run in runs}
        if len(found) == len(board.rows()) and not {"Running", "Pending"} & set(found.values()):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
