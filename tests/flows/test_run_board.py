"""The board shows what was reported, and nothing that was not."""

from __future__ import annotations

import pytest

from flows import run_board
from flows.run_board import RunBoard, StageStopped
from flows.stage_line import clock, plain_line


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> RunBoard:
    """A board with one running stage, and a clock that `tick` moves."""
    monkeypatch.setattr(run_board.time, "monotonic", lambda: now[0])
    now[0] = 1000.0
    board = RunBoard()
    board.announce("train-teacher")
    board.announce("evaluate")
    board.begin("train-teacher")
    return board


now = [1000.0]


def report(board: RunBoard, step: int, total: int | None = 100, note: str = "", **numbers: float) -> None:
    board.report("train-teacher", step, total, note, numbers)


def test_time_left_follows_the_speed_of_the_last_seconds(board: RunBoard) -> None:
    for second in range(31):
        now[0] = 1000.0 + second
        # Slow for ten seconds, then five steps a second.
        report(board, second if second <= 10 else 10 + 5 * (second - 10), total=210)
    assert board.rows()[0].left_s == pytest.approx((210 - 110) / 5)


def test_time_left_is_absent_while_it_is_unknown(board: RunBoard) -> None:
    report(board, 0)
    assert board.rows()[0].left_s is None
    now[0] += 5
    report(board, 10, total=None)
    assert board.rows()[0].left_s is None
    now[0] += 5
    report(board, 1, note="another phase")
    assert board.rows()[0].left_s is None


def test_a_resumed_stage_is_not_credited_with_the_steps_of_the_killed_run(board: RunBoard) -> None:
    report(board, 80)
    now[0] += 10
    report(board, 85)
    assert board.rows()[0].left_s == pytest.approx(30)


def test_a_stopped_run_unwinds_its_stages_after_the_grace(board: RunBoard) -> None:
    board.stop(grace_s=5)
    report(board, 1)
    now[0] += 6
    with pytest.raises(StageStopped):
        report(board, 2)
    assert not issubclass(StageStopped, Exception)


def test_what_never_ran_is_shown_as_that(board: RunBoard) -> None:
    now[0] += 3
    board.close()
    assert [(row.state, row.seconds) for row in board.rows()] == [("stopped", 3.0), ("not run", None)]


def test_plain_lines_say_stage_step_loss_speed_and_time_left(board: RunBoard) -> None:
    report(board, 0, total=1000)
    now[0] += 10
    report(board, 500, total=1000, note="epoch 2", accuracy=0.5, images_per_s=1812.4, loss=1.5)
    running, waiting = board.rows()
    assert plain_line(running) == "train-teacher: epoch 2, 500/1,000, loss 1.500, 1,812 img/s, accuracy 0.5, 0:10 left"
    assert waiting.state == "waiting"
    board.end("train-teacher", "done", headline="val accuracy 71.0%")
    assert plain_line(board.rows()[0]) == "train-teacher done in 0:10: val accuracy 71.0%"


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 9.9, 61, 3599, 3661)] == ["0:00", "0:09", "1:01", "59:59", "1:01:01"]
