"""Ctrl-C or SIGTERM in the middle of a training leaves nothing running, and the same command goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from tests.small_photos import draw_photos

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

# Half a minute on idle cores: a signal is sent at the first step shown, and is heard 5 s later at most.
LONG = ["--set", "teacher.training.epochs=20", "--set", "teacher.training.evaluate_every_epochs=0"]
# Two trainings of two threads each on two cores wait for each other: 178 images/s each, where one alone makes 1,249.
ONE_THREAD = ["--set", "teacher.runner.cpus_per_worker=1"]
COMMAND = ["run", "train-teacher", "--preset", "emoji-tiny", *LONG, *ONE_THREAD]
# The pretrained model of the preset photos, on Ray as by default; 147 steps.
PHOTOS = [
    *("run", "train-teacher", "--preset", "photos", "--set", "data.source.folder=photos"),
    *("--set", "teacher.image_size=64", "--set", "teacher.training.global_batch=4"),
    *("--set", "teacher.training.epochs=12", "--set", "teacher.training.patience=12", *ONE_THREAD),
]


def test_an_interrupted_training_leaves_nothing_and_the_same_command_goes_on(shell: Any, tmp_path: Path) -> None:
    reached = stopped_by(signal.SIGINT, shell, tmp_path / "ctrl-c")
    first = stopped_by(signal.SIGTERM, shell, tmp_path / "terminate")
    assert first > reached, "it began again instead of going on"


def test_ctrl_c_in_a_terminal_stops_photos_in_two_stages_and_the_same_command_completes(shell: Any) -> None:
    draw_photos(shell.folder / "photos")
    in_probe = typed_in_terminal(shell, PHOTOS, ctrl_c_at=r"● linear-probe")
    assert_interrupted(shell, *in_probe)
    in_training = typed_in_terminal(shell, PHOTOS, ctrl_c_at=STEP)
    assert_interrupted(shell, *in_training)
    code, screen = typed_in_terminal(shell, PHOTOS)
    assert code == 0, screen
    assert re.search(r"shard-dataset +✓ cached", screen)
    assert re.search(r"train-teacher +✓ done", screen)
    assert shown_step(screen) > shown_step(in_training[1]), "it began again instead of going on"


STEP = r"● train-teacher .*?(\d+)/\d+ .*loss"


def shown_step(screen: str) -> int:
    """The first step of a training that the display shows."""
    found = re.search(STEP, screen)
    assert found, screen
    return int(found[1])


def assert_interrupted(shell: Any, code: int, screen: str) -> None:
    assert code == 130, screen
    assert "tutelage: interrupted; the same command continues where it stopped" in screen
    assert "Traceback" not in screen
    assert eventually_empty(shell) == []
    artifacts = list((shell.store / "artifacts").glob("[a-z]*/[0-9a-f]*"))
    assert artifacts
    assert all((artifact / "manifest.json").is_file() for artifact in artifacts), "half an artifact"


def typed_in_terminal(
    shell: Any, command: list[str], ctrl_c_at: str | None = None, within_s: float = 280
) -> tuple[int, str]:
    """Runs a command in a terminal of its own; returns its exit code and what the terminal showed, without colours.

    Args:
        ctrl_c_at: Ctrl-C is typed once, when the shown text matches this.
    """
    terminal, its_side = os.openpty()
    fcntl.ioctl(its_side, termios.TIOCSWINSZ, struct.pack("4H", 50, 140, 0, 0))
    process = subprocess.Popen(
        [Path(sys.executable).with_name("tutelage"), *command],
        env={**shell.env, "TERM": "xterm-256color"},
        cwd=shell.folder,
        stdin=its_side,
        stdout=its_side,
        stderr=its_side,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its_side)
    shown = b""
    deadline = time.monotonic() + within_s
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):  # the process has closed its side
                    shown += os.read(terminal, 1 << 16)
            if ctrl_c_at is not None and re.search(ctrl_c_at, plain(shown)):
                os.write(terminal, b"\x03")
                ctrl_c_at = None
        assert process.poll() is not None, f"not ended in {within_s} s:\n{plain(shown)[-3000:]}"
        assert ctrl_c_at is None, f"never shown: {ctrl_c_at}\n{plain(shown)[-3000:]}"
        while select.select([terminal], [], [], 0)[0]:
            with contextlib.suppress(OSError):
                if more := os.read(terminal, 1 << 16):
                    shown += more
                    continue
            break
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(terminal)
    return process.returncode, plain(shown)


def plain(shown: bytes) -> str:
    """The text of a terminal's output, without control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown.decode(errors="replace"))


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
