"""Ctrl-C in the middle of a training leaves nothing running, and the same command goes on."""

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

# A quarter of a minute on idle cores: the signal is sent at the first step shown, and is heard 5 s later at most.
LONG = ["--set", "teacher.training.epochs=10", "--set", "teacher.training.evaluate_every_epochs=0"]
COMMAND = ["run", "train-teacher", "--preset", "emoji-tiny", *LONG]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_an_interrupted_training_leaves_nothing_and_goes_on(shell: Any, tmp_path: Path, how: signal.Signals) -> None:
    # Another seed a case: each trains for itself; the shards are made once.
    command = [*COMMAND, "--set", f"teacher.training.seed={int(how)}"]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            shell.command(*command), env=shell.env, cwd=shell.folder, stdout=out, stderr=err, start_new_session=True
        )
        steps_done = wait_for_step(tmp_path / "out", process)
        # As a terminal does: to every process of the foreground group.
        os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
        assert process.wait(120) == 130, (tmp_path / "err").read_text()
    said = (tmp_path / "err").read_text().splitlines()
    assert len(said) == 1
    assert "interrupted" in said[0]
    assert eventually_empty(shell) == []

    if how == signal.SIGTERM:
        return  # Going on is the same from here, and costs half a minute of Ray.
    again = shell.run(*command)
    assert again.returncode == 0, again.stderr
    first = re.search(r"train-teacher: .*?(\d+)/\d+", again.stdout)
    assert first is not None
    assert int(first[1]) >= steps_done, "it began again instead of going on"


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
