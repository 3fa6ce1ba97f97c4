"""The terminal: everything that is printed for people goes through here, and nothing of others is obeyed by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment

from pipeline.printable import printable


class Console(rich.console.Console):
    """Rich's console, to which texts are texts: no markup, no emoji codes, control characters written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def on_broken_pipe(self) -> None:
        """Our command line ends then, and not Rich."""
        raise BrokenPipeError

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            segment if segment.control else segment._replace(text=_shown(segment.text)) for segment in buffer
        )


def _shown(text: str) -> str:
    return text if text.isascii() and text.isprintable() else "\n".join(map(printable, text.split("\n")))
