"""Requests to stop a training: from a signal, or from another thread.

A signal does not end a training in the middle of a step. It is deferred until a checkpoint is
written, and then delivered to the previous handler. A second signal is not deferred.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.errors import WorkError

_DEFERRED = (signal.SIGTERM, signal.SIGINT)
_running: set[StopRequest] = set()


class StoppedError(WorkError):
    """A training ended early on request; its checkpoint is written."""


class StopRequest:
    """Whether a stop of one training was requested, and by which signal.

    Attributes:
        within_s: the seconds from the request in which workers must have written their checkpoint.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal: int | None = None
        self.within_s = 30.0

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the request; True if it arrived."""
        return self._event.wait(timeout_s)


def request_stop(within_s: float) -> int:
    """Asks every training of this process to write a checkpoint and stop; returns how many. Any thread may call it.

    Args:
        within_s: the seconds after which a training on Ray is ended without a new checkpoint.
    """
    requests = list(_running)
    for request in requests:
        request.within_s = within_s
        request.set()
    return len(requests)


def is_training() -> bool:
    """Whether a training of this process runs."""
    return bool(_running)


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Accepts requests to stop within the block; in the main thread, also SIGTERM and SIGINT.

    Python delivers signals to the main thread only: a training in another thread stops only when
    `request_stop` is called.
    """
    request = StopRequest()
    _running.add(request)
    previous_handlers: dict[signal.Signals, Any] = {}

    def defer(number: int, frame: FrameType | None) -> None:
        if request.signal is not None:
            _restore(previous_handlers)
            signal.raise_signal(number)
        request.signal = number
        request.set()

    if threading.current_thread() is threading.main_thread():
        previous_handlers = {number: signal.signal(number, defer) for number in _DEFERRED}
    try:
        yield request
    finally:
        _running.discard(request)
        _restore(previous_handlers)
        if request.signal is not None:
            signal.raise_signal(request.signal)


def _restore(previous_handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in previous_handlers.items():
        signal.signal(number, handler)
