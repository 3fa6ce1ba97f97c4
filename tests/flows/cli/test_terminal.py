"""The display fits its terminal, and nothing else that is printed tears it."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.terminal import RunDisplay, stage_table
from flows.run_board import RunBoard


def a_board() -> RunBoard:
    board = RunBoard()
    for label in ("shard-dataset", "train-teacher", "register classifier", "run-report"):
        board.announce(label)
    board.begin("shard-dataset")
    board.end("shard-dataset", "cached", headline="6,120 train + 700 val + 1,570 test images, 51 labels, 0 unreadable")
    board.begin("train-teacher")
    board.report("train-teacher", 412, 1200, "epoch 3 of 9", {"loss": 1.234, "images_per_s": 1812.0, "lr": 0.001})
    return board


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_display_keeps_stage_step_and_loss_at_any_width(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    display = RunDisplay("lifecycle", "preset emoji", a_board(), console)
    display.link("Prefect", "http://127.0.0.1:4200")
    console.print(display.render())
    lines = file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= width
    shown = "\n".join(lines)
    for words in (
        "lifecycle",
        "1 of 4 stages",
        "http://127.0.0.1:4200",
        "412/1,200",
        "loss 1.234",
        "waiting",
        "cached",
    ):
        assert words in shown
    assert ("1,812 img/s" in shown) == (width >= 80)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stop_is_shown_while_stages_run(terminal: bool) -> None:
    file, board = io.StringIO(), a_board()
    console = Console(file=file, width=100, force_terminal=terminal, color_system=None)
    display = RunDisplay("lifecycle", "preset emoji", board, console)
    board.set_phase("preparing the run")
    console.print(display.render())
    assert "preparing" not in file.getvalue()
    with display.drawing():
        board.set_phase("stopping: waiting for train-teacher")
        board.stop()
        time.sleep(0.5)
    assert "stopping: waiting for train-teacher" in file.getvalue()


def test_the_last_table_has_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    board = a_board()
    board.close()
    file = io.StringIO()
    Console(file=file, width=80, color_system=None).print(stage_table(board.rows()))
    text = file.getvalue()
    for words in ("shard-dataset", "cached", "stopped", "not run", "51 labels"):
        assert words in text


def test_what_others_print_goes_to_the_log(tmp_path: Path) -> None:
    # In a process of its own: pytest holds the file descriptors of this one.
    code = """
import os, subprocess, sys
from pathlib import Path
from flows.cli.terminal import output_to_log
with output_to_log(Path(sys.argv[1])) as (out, err):
    print("a print"); sys.stderr.write("a warning\\n"); os.write(1, b"a library\\n")
    subprocess.run(["sh", "-c", "echo a child; echo its error >&2"])
    out.write("shown\\n"); err.write("said\\n")
print("afterwards")
"""
    log = tmp_path / "logs" / "run.log"
    answer = subprocess.run([sys.executable, "-c", code, log], capture_output=True, text=True, check=True)
    assert answer.stdout == "shown\nafterwards\n"
    assert answer.stderr == "said\n"
    for words in ("a print", "a warning", "a library", "a child", "its error"):
        assert words in log.read_text()
