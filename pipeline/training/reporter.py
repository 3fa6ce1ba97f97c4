"""The interface by which the loop reports progress to its runner; each runner implements it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.progress import Progress
from pipeline.training.heartbeat import Position
from pipeline.training.interruption import StopRequest

if TYPE_CHECKING:
    from pipeline.training.tracking import TrackedRun


class Reporter(Protocol):
    """Receives the loop's reports and may request a stop. Calls must be cheap: some occur at every step."""

    def progress(self, step: int, total: int, numbers: dict[str, float]) -> None:
        """Receives the progress of the training; rank 0 calls it, at most every 0.5 s."""

    def row(self, row: dict[str, Any]) -> None:
        """Receives a new line of metrics.jsonl; rank 0 calls it."""

    def stop_requested(self) -> bool:
        """Whether to write a checkpoint and raise StoppedError; rank 0 calls it at every step."""

    def checkpoint_requested(self) -> bool:
        """Whether to write a checkpoint and continue, e.g. because this machine is about to be preempted.

        Every rank calls it at every step.
        """

    def heartbeats(self, position: Callable[[], Position]) -> AbstractContextManager[None]:
        """Tells where the training of the block is, if someone watches it; every rank calls it."""


class NullReporter:
    """A Reporter that discards all reports and requests nothing."""

    def progress(self, step: int, total: int, numbers: dict[str, float]) -> None:
        pass

    def row(self, row: dict[str, Any]) -> None:
        pass

    def stop_requested(self) -> bool:
        return False

    def checkpoint_requested(self) -> bool:
        return False

    def heartbeats(self, position: Callable[[], Position]) -> AbstractContextManager[None]:
        return nullcontext()


class DriverReporter:
    """The Reporter on the driver: forwards reports to the display and to MLflow, and stop requests to the loop."""

    def __init__(self, display: Progress, run: TrackedRun | None, stop: StopRequest) -> None:
        self.stop = stop
        self._display = display
        self._run = run

    def progress(self, step: int, total: int, numbers: dict[str, float]) -> None:
        self._display(step=step, total=total, note="", **numbers)

    def note(self, text: str) -> None:
        """Shows the current activity before the first step."""
        self._display(note=text)

    def row(self, row: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.row(row)

    def stop_requested(self) -> bool:
        return bool(self.stop)

    def checkpoint_requested(self) -> bool:
        return False

    def heartbeats(self, position: Callable[[], Position]) -> AbstractContextManager[None]:
        return nullcontext()
