"""Requests to stop a training: from a signal, or from another thread.

A signal does not end a training in the middle of a step. It is held back until a checkpoint is
written, and then delivered to whoever handled it before. A second signal is not held back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.errors import WorkError

_HELD = (signal.SIGTERM, signal.SIGINT)
_open: set[StopRequest] = set()


class StoppedError(WorkError):
    """A training ended early because it was asked to; its checkpoint is written."""


class StopRequest:
    """Whether one training was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the request; True if it came."""
        return self._event.wait(timeout_s)


def request_stop() -> int:
    """Asks every training of this process to write a checkpoint and stop; how many that are. For other threads."""
    asked = list(_open)
    for request in asked:
        request.set()
    return len(asked)


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Listens for requests to stop; in the main thread, for SIGTERM and SIGINT too.

    Python delivers signals to the main thread only: a training in another thread stops when
    `request_stop` is called.
    """
    request = StopRequest()
    _open.add(request)
    former: dict[signal.Signals, Any] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        if request.signal is not None:
            _restore(former)
            signal.raise_signal(number)
        request.signal = number
        request.set()

    if threading.current_thread() is threading.main_thread():
        former = {number: signal.signal(number, hold) for number in _HELD}
    try:
        yield request
    finally:
        _open.discard(request)
        _restore(former)
        if request.signal is not None:
            signal.raise_signal(request.signal)


def _restore(former: dict[signal.Signals, Any]) -> None:
    for number, handler in former.items():
        signal.signal(number, handler)
