"""Progress: how a stage tells whoever watches where it stands.

A stage calls it with its step and any numbers worth showing; what is done with them (a live
display, plain lines, nothing) is the caller's choice. Calling it must be cheap and never fail.
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
            note: what is being done, in a few words, e.g. "rasterising".
            numbers: values to show, e.g. loss=2.31, images_per_s=412.0.
        """


def silent(*, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
    """A Progress that shows nothing."""
