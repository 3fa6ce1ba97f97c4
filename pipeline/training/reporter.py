"""How the loop tells its runner where it stands; each runner has its own way to pass it on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pipeline.progress import Progress
from pipeline.training.interruption import StopRequest

if TYPE_CHECKING:
    from pipeline.training.tracking import TrackedRun


class Reporter(Protocol):
    """Hears from the loop and may ask it to stop. Calls must be cheap: some come at every step."""

    def progress(self, step: int, total: int, numbers: dict[str, float]) -> None:
        """Where the training stands; rank 0 calls it, at most every 0.5 s."""

    def row(self, row: dict[str, Any]) -> None:
        """A new line of metrics.jsonl; rank 0 calls it."""

    def stop_requested(self) -> bool:
        """Whether to write a checkpoint and raise StoppedError; rank 0 asks, at every step."""

    def checkpoint_requested(self) -> bool:
        """Whether to write a checkpoint and go on, e.g. since this machine is about to be taken away.

        Every rank asks, at every step.
        """


class Unheard:
    """A Reporter that nobody listens to and that asks for nothing."""

    def progress(self, step: int, total: int, numbers: dict[str, float]) -> None:
        pass

    def row(self, row: dict[str, Any]) -> None:
        pass

    def stop_requested(self) -> bool:
        return False

    def checkpoint_requested(self) -> bool:
        return False


class Listener:
    """The Reporter on the driver's side: passes on to the display and to MLflow, and knows of stop requests."""

    def __init__(self, display: Progress, run: TrackedRun | None, stop: StopRequest) -> None:
        self.stop = stop
        self._display = display
        self._run = run

    def progress(self, step: int, total: int, numbers: dict[str, float]) -> None:
        self._display(step=step, total=total, note="", **numbers)

    def note(self, text: str) -> None:
        """Says what is being done before the first step."""
        self._display(note=text)

    def row(self, row: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.row(row)

    def stop_requested(self) -> bool:
        return bool(self.stop)

    def checkpoint_requested(self) -> bool:
        return False
