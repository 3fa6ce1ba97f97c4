"""Runs a command and ends it when the process that asked for it is gone, however that one died.

    python leash.py OWNER_PID GRACE_S COMMAND...

A leash and not PR_SET_PDEATHSIG: that signal is sent when the *thread* that started the child ends
(a flow's worker thread would take the server with it), it does not reach the server's own children
(`mlflow server` is two processes), and it is Linux only. The price is 11 MB and a look every 0.1 s.
Standard library only, since it runs with `python -I -S` to start in 15 ms.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
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
    server = subprocess.Popen(command, process_group=0)
    while server.poll() is None and not asked and os.getppid() == owner:
        time.sleep(_LOOK_S)
    # To the leader alone, who ends its own in the right order: Ray's raylet, told together with the server that it
    # reports to, waits for that one 10 s, and Ray's head was killed after its 20 s of grace.
    server.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    # Also whatever the server left behind in its group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    return server.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
