"""The display of a run: a live table on a terminal, plain lines elsewhere.

While a run is displayed, all other output to this process's stdout and stderr (loggers, libraries, child
processes) goes to the run's log file, so that it does not break the display.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.standard_files import NAMES, open_descriptor
from flows.run_board import RunBoard, StageRow
from flows.stage_line import clock, formatted_numbers, plain_line
from pipeline.counted import counted

_PLAIN_EVERY_S = 5.0
_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("●", "cyan"),
    "done": ("✓", "green"),
    "cached": ("✓", "blue"),
    "nothing new": ("✓", "blue"),
    "failed": ("✗", "red"),
    "stopped": ("■", "yellow"),
    "not run": ("·", "dim"),
}
_STYLES = {state: style for state, (_, style) in _MARKS.items()}


@contextmanager
def output_to_log(log: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """Redirects file descriptors 1 and 2 to `log` and yields the real stdout and stderr as files."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    real_out, real_err = (
        open_descriptor(os.dup(descriptor), NAMES[number]) for number, descriptor in enumerate(saved, start=1)
    )
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield real_out, real_err
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # The log's disk is full: still print the outcome.
                stream.flush()
        for number, descriptor in enumerate(saved, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for real in (real_out, real_err):
            with suppress(OSError):  # Its reader has gone, or its disk is full.
                real.close()


class RunDisplay:
    """Shows the progress of a run, inside the context manager `drawing`.

    Args:
        flow: name of the flow.
        origin: where the parameters are from, e.g. "preset emoji".
        board: states of the stages.
        console: prints plain lines if it is not a terminal.
    """

    def __init__(self, flow: str, origin: str, board: RunBoard, console: Console) -> None:
        self.flow = flow
        self.origin = origin
        self.board = board
        self.console = console
        self.links: dict[str, str] = {}
        self._started = time.monotonic()
        self._spinner = Spinner("dots", style="cyan")
        self._ended = threading.Event()

    def link(self, name: str, address: str) -> None:
        """Adds an address to the header of the display."""
        self.links[name] = address
        if not self.console.is_terminal:
            self._line(f"{name}: {address}")

    @contextmanager
    def drawing(self) -> Iterator[RunDisplay]:
        """Draws the board while the block runs."""
        if self.console.is_terminal:
            with Live(
                console=self.console,
                get_renderable=self.render,
                refresh_per_second=8,
                redirect_stdout=False,
                redirect_stderr=False,
                transient=True,
            ):
                yield self
            return
        self._line(f"tutelage {self.flow} ({self.origin})")
        thread = threading.Thread(target=self._plain_lines, name="plain-lines", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def render(self) -> RenderableType:
        """The current display."""
        rows = self.board.rows()
        ended = sum(row.ended for row in rows)
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column()
        head.add_column(justify="right")
        title = Text.assemble(("tutelage ", "bold"), (self.flow, "bold cyan"), (f"  {self.origin}", "dim"))
        progress_text = f"{ended} of {counted(len(rows), 'stage')}  " if rows else ""
        head.add_row(title, Text.assemble((progress_text, "dim"), (clock(time.monotonic() - self._started), "bold")))
        lines: list[RenderableType] = ["", head]
        lines += [
            Text.assemble((f"{name}  ", "dim"), (address, "underline"), no_wrap=True, overflow="ellipsis")
            for name, address in self.links.items()
        ]
        phase = self.board.phase
        if phase and (self.board.stopping or not any(row.state == "running" for row in rows)):
            self._spinner.update(text=Text(phase, "dim"))
            lines.append(self._spinner)
        lines += ["", self._stages(rows), ""]
        return Group(*lines)

    def _stages(self, rows: list[StageRow]) -> Table:
        names = max((len(row.label) for row in rows), default=0)
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True, width=names)
        table.add_column(justify="right", width=5)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        width = self.console.width - 1 - names - 5 - 3
        for row in rows:
            mark, style = _MARKS[row.state]
            seconds = "" if row.elapsed_s is None else clock(row.elapsed_s)
            name_style = {"waiting": "dim", "not run": "dim", "running": "bold"}.get(row.state, "")
            table.add_row(
                Text(mark, style), Text(row.label, name_style), Text(seconds, "dim"), _details(row, style, width)
            )
        return table

    def _plain_lines(self) -> None:
        last_state: dict[str, str] = {}
        last_time: dict[str, float] = {}
        last_shown: dict[str, tuple[int, str]] = {}
        last_phase = ""
        while True:
            final = self._ended.wait(0.2)
            for row in self.board.rows():
                if row.state in ("waiting", "not run"):
                    continue
                changed = last_state.get(row.label) != row.state
                moved = last_shown.get(row.label) != (row.step, row.note)
                due = time.monotonic() - last_time.get(row.label, 0.0) >= _PLAIN_EVERY_S
                if changed or (row.state == "running" and moved and due):
                    self._line(plain_line(row))
                    last_state[row.label] = row.state
                    last_time[row.label] = time.monotonic()
                    last_shown[row.label] = (row.step, row.note)
            phase = self.board.phase
            if phase not in ("", last_phase):
                self._line(phase)
            last_phase = phase
            if final:
                return

    def _line(self, text: str) -> None:
        self.console.print(
            f"{clock(time.monotonic() - self._started):>6}  {text}", markup=False, highlight=False, soft_wrap=True
        )


def _details(row: StageRow, style: str, width: int) -> RenderableType:
    """The text to the right of a stage's name, in `width` columns."""
    if row.state == "waiting":
        return Text("waiting", "dim")
    if row.state != "running":
        word = "" if row.state == "done" and row.headline else row.state + ("  " if row.headline else "")
        return Text.assemble((word, style), (row.headline, "red" if row.state == "failed" else ""))
    bar, gap = (24, 2) if width > 80 else (8, 1)
    steps = f"{row.step:,}/{row.total:,}" if row.total else f"{row.step:,}" if row.step else ""
    left = f"{clock(row.left_s)} left" if row.left_s is not None else ""
    numbers = formatted_numbers(row)
    # Most important first: later ones are dropped when the width is too small. They are drawn in the order of `shown`.
    wanted = [steps, *numbers[:1], left, *numbers[1:2], row.note, *numbers[2:]]
    used = bar + gap if row.total else 0
    fitting = set()
    for text in wanted:
        if text and used + len(text) <= width:
            fitting.add(text)
            used += len(text) + gap
    line = Table.grid(padding=(0, gap, 0, 0), pad_edge=False)
    cells: list[RenderableType] = []
    if row.total:
        cells.append(ProgressBar(total=row.total, completed=min(row.step, row.total), width=bar, complete_style="cyan"))
    shown = [(steps, ""), *((text, "") for text in numbers), (left, "cyan"), (row.note, "dim")]
    cells += [Text(text, text_style) for text, text_style in shown if text in fitting]
    for _ in cells:
        line.add_column(no_wrap=True)
    line.add_row(*cells)
    return line


def stage_table(rows: list[StageRow]) -> Table:
    """The table at the end: every stage with state, seconds and headline."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    for row in rows:
        mark, style = _MARKS[row.state]
        seconds = "" if row.seconds is None or row.state == "not run" else f"{row.seconds:.1f}"
        table.add_row(row.label, Text(f"{mark} {row.state}", style), seconds, row.headline)
    return table
