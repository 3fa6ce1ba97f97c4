"""A second Ctrl-C, or SIGTERM, ends a run at once, whatever the first one is still waiting for.

The first one ends a run in order: trainings write a checkpoint, what was done is recorded. Each of those waits has a
limit, but whoever presses Ctrl-C again wants to be gone. Nothing is lost by that: it is no more than a kill -9, which
every stage goes on after, and after which no process stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

_passed_on = threading.Event()
# One stop can reach a process twice: sent to it, and to its group.
_SAME_S = 0.5
_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def ends_at_once(last_words: Callable[[], None], *, code: int = 130) -> Iterator[None]:
    """Within it, in the main thread, a second signal ends the process with an exit code.

    It is heard by a thread, by the signal's number on a socket: a handler would run only when the main thread comes
    back from what it waits for, and Prefect and Ray install handlers of their own.

    Args:
        last_words: called before the end.
    """
    hears, speaks = socket.socketpair()
    speaks.setblocking(False)
    thread = threading.Thread(target=_listen, args=(hears, last_words, code), name="second-signal", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(speaks.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        speaks.close()
        thread.join()
        hears.close()
        _passed_on.clear()


@contextlib.contextmanager
def passed_on_once() -> Iterator[None]:
    """Around a flow, within `ends_at_once`: Prefect sends a SIGTERM that ended it again, which is no second one.

    That holds after the flow too: the signal is heard by a thread, which may come to it later.
    """
    _passed_on.set()
    yield


@contextlib.contextmanager
def all_from_outside() -> Iterator[None]:
    """Around what a flow does: here Prefect sends nothing yet."""
    was_set = _passed_on.is_set()
    _passed_on.clear()
    try:
        yield
    finally:
        if was_set:
            _passed_on.set()


def _listen(hears: socket.socket, last_words: Callable[[], None], code: int) -> None:
    first: float | None = None
    by_sigterm = False
    while numbers := hears.recv(64):
        if not any(number in _STOPS for number in numbers):
            continue
        now = time.monotonic()
        if first is None:
            first, by_sigterm = now, signal.SIGTERM in numbers
        elif by_sigterm and signal.SIGTERM in numbers and _passed_on.is_set():
            _passed_on.clear()
        elif now - first > _SAME_S:
            with contextlib.suppress(Exception):
                last_words()
            os._exit(code)
