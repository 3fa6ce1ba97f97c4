"""The board of a run: the state and progress of each stage, for a display.

Stages write to it from their own threads; a display reads snapshots. The time left is computed from the steps of the
last 20 seconds, and is None for a stage that does not report its total number of steps.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.config import Config

StageState = Literal["waiting", "running", "done", "cached", "nothing new", "failed", "stopped", "not run"]
_RATE_WINDOW_S = 20.0


class StageStopped(BaseException):
    """Raised in a stage's thread by its first progress call after the run was stopped.

    Not an Exception, so that no stage handles it as a failure of its own.
    """


@dataclass(frozen=True)
class StageRow:
    """One stage on the board.

    Attributes:
        label: its name in this run; two runs of the same stage have different labels.
        step: units done of `total` (None: unknown), as last reported.
        started: time.monotonic() of its start; None while it waits.
        seconds: its duration, once it has ended.
        headline: its result in a few words, once it has ended.
        left_s: estimated seconds until its last step; None: unknown.
    """

    label: str
    state: StageState = "waiting"
    step: int = 0
    total: int | None = None
    note: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    started: float | None = None
    seconds: float | None = None
    headline: str = ""
    left_s: float | None = None

    @property
    def elapsed_s(self) -> float | None:
        if self.seconds is not None:
            return self.seconds
        return None if self.started is None else time.monotonic() - self.started

    @property
    def ended(self) -> bool:
        return self.state not in ("waiting", "running")


class RunBoard:
    """The stages of one run in the order in which they were announced; safe to use from any thread.

    Args:
        checked: parameters that preflight has already checked, so that the run does not check them again.
    Attributes:
        phase: what the run does outside its stages, e.g. "starting the Prefect server".
        stopping: the run ends early; its phase is shown even while stages run.
        notes: stage that the run leaves out -> the reason.
    """

    def __init__(self, checked: Config | None = None) -> None:
        self.checked = checked
        self._lock = threading.Lock()
        self._rows: dict[str, StageRow] = {}
        self._history: dict[str, deque[tuple[float, int]]] = {}
        self._stop_at: float | None = None
        self.phase = ""
        self.stopping = False
        self.notes: dict[str, str] = {}
        self.flow_run_id: str | None = None

    def set_phase(self, phase: str) -> None:
        """Sets the phase of the run."""
        self.phase = phase

    def announce(self, label: str) -> None:
        """Puts a stage on the board as waiting."""
        with self._lock:
            self._rows.setdefault(label, StageRow(label))

    def begin(self, label: str) -> None:
        with self._lock:
            row = self._rows.get(label, StageRow(label))
            self._rows[label] = replace(row, state="running", started=time.monotonic())
            self._history[label] = deque()

    def report(self, label: str, step: int, total: int | None, note: str, numbers: dict[str, float]) -> StageRow:
        """Records the progress that a stage reports; returns its row.

        Raises:
            StageStopped: the run was stopped; unwinds the stage.
        """
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            raise StageStopped(label)
        with self._lock:
            row = self._rows[label]
            history = self._history[label]
            if total != row.total or (history and step < history[-1][1]):
                history.clear()
            now = time.monotonic()
            history.append((now, step))
            while now - history[0][0] > _RATE_WINDOW_S and len(history) > 2:
                history.popleft()
            left_s = _left_s(history, total)
            row = replace(row, step=step, total=total, note=note, numbers=dict(numbers), left_s=left_s)
            self._rows[label] = row
            return row

    def end(self, label: str, state: StageState, *, headline: str = "", seconds: float | None = None) -> None:
        """Sets the final state of a stage; `seconds` defaults to the time since it began."""
        with self._lock:
            row = self._rows.get(label, StageRow(label))
            if seconds is None:
                seconds = 0.0 if row.started is None else time.monotonic() - row.started
            self._rows[label] = replace(row, state=state, headline=headline, seconds=seconds, left_s=None)

    def show_stop(self) -> None:
        """Shows that a signal has arrived; a later phase says what the run waits for."""
        if not self.stopping:
            self.stopping = True
            self.set_phase("stopping; Ctrl-C again ends the run at once")

    def running(self) -> list[str]:
        """The labels of the stages that run."""
        return [row.label for row in self.rows() if row.state == "running"]

    def stop(self, grace_s: float = 0.0) -> None:
        """Raises StageStopped in every running stage at its first report after `grace_s` seconds."""
        self.stopping = True
        self._stop_at = time.monotonic() + grace_s

    def close(self) -> None:
        """Marks waiting stages as not run and running ones as stopped."""
        with self._lock:
            for label, row in self._rows.items():
                if row.state == "waiting":
                    self._rows[label] = replace(row, state="not run")
                elif row.state == "running":
                    self._rows[label] = replace(row, state="stopped", seconds=row.elapsed_s, left_s=None)

    def rows(self) -> list[StageRow]:
        with self._lock:
            return list(self._rows.values())


def _left_s(history: deque[tuple[float, int]], total: int | None) -> float | None:
    (first_time, first_step), (last_time, last_step) = history[0], history[-1]
    if total is None or last_step <= first_step or last_time - first_time < 1.0:
        return None
    return max(total - last_step, 0) * (last_time - first_time) / (last_step - first_step)


_current: RunBoard | None = None


def current_board() -> RunBoard:
    """The board that this process displays, or a new one that is not displayed."""
    return _current if _current is not None else RunBoard()


@contextmanager
def use_board(board: RunBoard) -> Iterator[RunBoard]:
    """Makes `board` the current board of this process, for the duration of the block."""
    global _current
    _current = board
    try:
        yield board
    finally:
        _current = None
