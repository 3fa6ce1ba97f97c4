"""A second Ctrl-C, or SIGTERM, ends a run at once, even while the first one is still being handled.

The first signal shuts a run down in order: trainings write a checkpoint, results are recorded. Each of these steps has
a time limit, but a user who presses Ctrl-C again wants to exit now. That is safe: it is equivalent to kill -9, after
which every stage can continue and no process remains.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

_resend_expected = threading.Event()
# One stop can reach a process twice: sent to the process and to its group.
_SAME_STOP_S = 0.5
_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def exit_on_second_signal(
    before_exit: Callable[[], None], *, on_first_signal: Callable[[], None] = lambda: None, code: int = 130
) -> Iterator[None]:
    """Within the block, which the main thread runs, a second signal ends the process with an exit code.

    A thread reads the signals' numbers from a socket: a handler would run only when the main thread returns from its
    current wait, and Prefect and Ray install handlers of their own.

    Args:
        before_exit: called before the process exits.
        on_first_signal: called at the first signal, whatever the main thread waits for.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    thread = threading.Thread(
        target=_listen, args=(receiver, before_exit, on_first_signal, code), name="second-signal", daemon=True
    )
    thread.start()
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sender.close()
        thread.join()
        receiver.close()
        _resend_expected.clear()


@contextlib.contextmanager
def ignore_resent_sigterm() -> Iterator[None]:
    """Within `exit_on_second_signal`, around a flow: ignores one SIGTERM, which Prefect resends after the flow.

    The SIGTERM is ignored after the block too, since the thread may read it later.
    """
    _resend_expected.set()
    yield


@contextlib.contextmanager
def count_every_signal() -> Iterator[None]:
    """Suspends `ignore_resent_sigterm` within the block: the body of a flow, during which Prefect resends no signal."""
    was_set = _resend_expected.is_set()
    _resend_expected.clear()
    try:
        yield
    finally:
        if was_set:
            _resend_expected.set()


def _listen(
    receiver: socket.socket, before_exit: Callable[[], None], on_first_signal: Callable[[], None], code: int
) -> None:
    first: float | None = None
    by_sigterm = False
    while numbers := receiver.recv(64):
        if not any(number in _STOPS for number in numbers):
            continue
        now = time.monotonic()
        if first is None:
            first, by_sigterm = now, signal.SIGTERM in numbers
            on_first_signal()
        elif by_sigterm and signal.SIGTERM in numbers and _resend_expected.is_set():
            _resend_expected.clear()
        elif now - first > _SAME_STOP_S:
            with contextlib.suppress(Exception):
                before_exit()
            os._exit(code)
