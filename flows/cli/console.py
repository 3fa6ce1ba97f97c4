"""The console for all output to people. It never interprets markup or control characters in printed text."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment

from pipeline.printable import printable

_LEAST_WIDTH = 20
_WIDTH = 80
_UNWRAPPED = 10_000


class Console(rich.console.Console):
    """Rich's console without markup and emoji codes; control characters are printed as escapes.

    Args:
        unwrapped: do not wrap or truncate lines and tables if the output is a pipe or a file, since programs read one
            row per line; COLUMNS, if set, still limits the width.
    """

    def __init__(self, *, unwrapped: bool = True, **options: Any) -> None:
        columns = os.environ.get("COLUMNS", "")
        if "width" not in options and _narrow(columns):
            options["width"] = _WIDTH
        super().__init__(**{"markup": False, "emoji": False, **options})
        if unwrapped and "width" not in options and not columns.isdigit() and not self.is_terminal:
            self.width = _UNWRAPPED

    def on_broken_pipe(self) -> None:
        """Raises the error for `main` to handle; Rich would exit the process."""
        raise BrokenPipeError

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            segment if segment.control else segment._replace(text=_escaped(segment.text)) for segment in buffer
        )


def _narrow(columns: str) -> bool:
    """Whether COLUMNS leaves no room for a table: Rich draws nothing at all then."""
    return columns.isdigit() and int(columns[:9]) < _LEAST_WIDTH


def _escaped(text: str) -> str:
    return text if text.isascii() and text.isprintable() else "\n".join(map(printable, text.split("\n")))
