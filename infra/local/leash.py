"""Runs a command and ends it when the process that asked for it is gone, however that one died.

    python leash.py OWNER_PID GRACE_S COMMAND...

A leash and not PR_SET_PDEATHSIG: that signal is sent when the *thread* that started the child ends
(a flow's worker thread would take the server with it), it does not reach the server's own children
(`mlflow server` is two processes), and it is Linux only. The price is 11 MB and a look every 0.1 s.
Standard library only, since it runs with `python -I -S` to start in 15 ms.

The leash can be killed too. Then its guard, a fork of it in a session of its own, ends the server in its stead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

_LOOK_S = 0.1


def main(owner: int, grace_s: float, command: list[str]) -> int:
    """The command's exit status; its whole process group is gone when this returns."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    # A handler, not SIG_IGN: exec resets a handler, while the command would inherit SIG_IGN.
    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    guard = _guard(grace_s)

    def register() -> None:
        os.write(guard, f"{os.getpid()}\n".encode())

    # By the server's process itself: there is no moment at which the leash can be killed and the server stays.
    server = subprocess.Popen(command, process_group=0, preexec_fn=register)
    while server.poll() is None and not asked and os.getppid() == owner:
        time.sleep(_LOOK_S)
    # To the leader alone, who ends its own in the right order: Ray's raylet, told together with the server that it
    # reports to, waits for that one 10 s, and Ray's head was killed after its 20 s of grace.
    _end(server.pid, lambda: server.poll() is None, grace_s)
    with contextlib.suppress(BrokenPipeError):
        os.write(guard, b"ended\n")
    return server.wait()


def _guard(grace_s: float) -> int:
    """Forks the guard; the end of the pipe on which it hears of the server, and that this process has ended."""
    listening, speaking = os.pipe()
    if os.fork():
        os.close(listening)
        return speaking
    # Whoever kills the leash's group or session does not reach this.
    os.setsid()
    os.close(speaking)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(listening) as pipe:
        words = pipe.read().split()
    if len(words) == 1:
        server = int(words[0])
        _end(server, lambda: _group_lives(server), grace_s)
    os._exit(0)


def _end(server: int, lives: Callable[[], bool], grace_s: float) -> None:
    """SIGTERM to the server; SIGKILL to whatever is left of its group, at the latest after the grace."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while lives() and time.monotonic() < deadline:
        time.sleep(0.02)
    # Also whatever the server left behind in its group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server, signal.SIGKILL)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
