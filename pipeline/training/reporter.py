"""How the loop tells its runner where it stands; each runner has its own way to pass it on."""

from __future__ import annotations

from typing import Any, Protocol


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
