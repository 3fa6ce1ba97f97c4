"""Ctrl-C or SIGTERM in the middle of a training leaves nothing running, and the same command goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

# Half a minute on idle cores: a signal is sent at the first step shown, and is heard 5 s later at most.
LONG = ["--set", "teacher.training.epochs=20", "--set", "teacher.training.evaluate_every_epochs=0"]
# Two trainings of two threads each on two cores wait for each other: 178 images/s each, where one alone makes 1,249.
ONE_THREAD = ["--set", "teacher.runner.cpus_per_worker=1"]
COMMAND = ["run", "train-teacher", "--preset", "emoji-tiny", *LONG, *ONE_THREAD]


def test_an_interrupted_training_leaves_nothing_and_the_same_command_goes_on(shell: Any, tmp_path: Path) -> None:
    reached = stopped_by(signal.SIGINT, shell, tmp_path / "ctrl-c")
    first = stopped_by(signal.SIGTERM, shell, tmp_path / "terminate")
    assert first > reached, "it began again instead of going on"


def stopped_by(how: signal.Signals, shell: Any, logs: Path) -> int:
    """Runs the training, stops it at the first step it shows, looks at what is left; returns that step."""
    logs.mkdir()
    with (logs / "out").open("w") as out, (logs / "err").open("w") as err:
        process = subprocess.Popen(
            shell.command(*COMMAND), env=shell.env, cwd=shell.folder, stdout=out, stderr=err, start_new_session=True
        )
        step = wait_for_step(logs / "out", process)
        # As a terminal does: to every process of the foreground group.
        os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
        assert process.wait(120) == 130, (logs / "err").read_text()
    said = (logs / "err").read_text().splitlines()
    assert len(said) == 1
    assert "interrupted" in said[0]
    assert eventually_empty(shell) == []
    return step


def wait_for_step(out: Path, process: subprocess.Popen[bytes], within_s: float = 180) -> int:
    """Returns the first step that the training reports."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and process.poll() is None:
        found = re.findall(r"train-teacher: .*?(\d+)/\d+, loss", out.read_text())
        if found:
            return int(found[-1])
        time.sleep(0.1)
    raise AssertionError(f"no training step was shown:\n{out.read_text()}")


def eventually_empty(shell: Any, within_s: float = 30) -> list[str]:
    """What is left of the command's processes, a few seconds after its end."""
    deadline = time.monotonic() + within_s
    while shell.processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    return list(shell.processes())
