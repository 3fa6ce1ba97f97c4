"""The progress of a command other than `run`, on stderr: a bar on a terminal, elsewhere a line every 5 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from flows.cli.console import Console
from pipeline.printable import printable
from pipeline.progress import Progress

_PLAIN_EVERY_S = 5.0


@contextmanager
def progress_line(command: str) -> Iterator[Progress]:
    """Shows the progress of the block; the bar disappears at its end.

    Args:
        command: prefix of plain lines.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(command)
        return
    columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(command, total=None)

        def show(*, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
            bars.update(task, completed=step, total=total, description=note or command)

        yield show


class _Lines:
    def __init__(self, command: str) -> None:
        self._command = command
        self._last = time.monotonic()

    def __call__(self, *, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        now = time.monotonic()
        if now - self._last < _PLAIN_EVERY_S:
            return
        self._last = now
        parts = [note, f"{step / total:.0%}" if total else ""]
        print(printable(f"{self._command}: {', '.join(filter(None, parts))}"), file=sys.stderr, flush=True)
