"""Progress: the callback by which a stage reports its progress.

A stage calls it with its step and any numbers worth showing; the caller decides how to show them (a live display, plain
lines, not at all). The call must be cheap and must not fail; it may raise to stop the stage.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the state of a running stage."""

    def __call__(self, *, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        """Reports the state of a stage.

        Args:
            step: units done so far.
            total: units to do, if known.
            note: the current activity in a few words, e.g. "rasterising".
            numbers: values to show, e.g. loss=2.31, images_per_s=412.0.
        """


def silent(*, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
    """A Progress that shows nothing."""
