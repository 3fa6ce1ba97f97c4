"""Runs a command, here a server, and ends it when its owner process is gone, however the owner died.

    python leash.py OWNER_PID GRACE_S COMMAND...

PR_SET_PDEATHSIG in the owner does not suffice: it is sent when the *thread* that started the child ends (the end of a
flow's worker thread would end the server), it does not reach the server's own children (`mlflow server` is two
processes), and it is Linux only. The leash costs 11 MB and polls every 0.1 s. It uses the standard library only, since
it runs with `python -I -S` to start in 20 ms.

The leash can be killed too. Then its guard, a fork in a separate session, ends the server. On Linux, the kernel sends
SIGTERM to the server when the leash ends, so it ends in order even if owner, leash and guard are killed together.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

_POLL_S = 0.1
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(owner: int, grace_s: float, command: list[str]) -> int:
    """Returns the command's exit status; its whole process group has ended by then."""
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    # A handler instead of SIG_IGN: exec resets a handler, but the command would inherit SIG_IGN.
    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    guard = _guard(grace_s)
    leash = os.getpid()
    # Loaded before the fork: a child may not import.
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def register() -> None:
        os.write(guard, f"{os.getpid()}\n".encode())
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != leash:
                os._exit(1)

    # The server's process registers itself, so that the guard knows it even if the leash is killed at this moment.
    server = subprocess.Popen(command, process_group=0, preexec_fn=register)
    while server.poll() is None and not signals and os.getppid() == owner:
        time.sleep(_POLL_S)
    # SIGTERM goes to the group's leader only, which ends its children in the right order. When the whole group got it,
    # Ray's raylet waited 10 s for the server that it reports to, and Ray's head was killed after its grace of 20 s.
    _end(server.pid, lambda: server.poll() is None, grace_s)
    with contextlib.suppress(BrokenPipeError):
        os.write(guard, b"ended\n")
    return server.wait()


def _guard(grace_s: float) -> int:
    """Forks the guard and returns the write end of a pipe to it, to which the server's pid is written, then "ended".

    If the pipe closes without "ended", the leash was killed, and the guard ends the server.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        return writing
    # A signal to the leash's group or session does not reach the guard.
    os.setsid()
    os.close(writing)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(reading) as pipe:
        words = pipe.read().split()
    if len(words) == 1:
        server = int(words[0])
        _end(server, lambda: _group_is_alive(server), grace_s)
    os._exit(0)


def _end(server: int, is_alive: Callable[[], bool], grace_s: float) -> None:
    """Sends SIGTERM to the server, and SIGKILL to its group when the server has ended or the grace is over."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    # Also if the server has ended: processes of its group may be left.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server, signal.SIGKILL)


def _group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
