"""A worker's heartbeats: where its training is, sent by a thread every few seconds, also while it stands still."""

from __future__ import annotations

import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

# In these files of torch, and in calls of them, a worker waits for the others.
_WAITING = ("torch/distributed/", "torch/autograd/graph.py", "torch/nn/parallel/distributed.py")


@dataclass(frozen=True)
class Position:
    """Where a training is.

    Attributes:
        step: the step, numbered from 0.
        started: number of steps that this process started.
        order: position of the part in its step; equal parts of equal steps are at the same place on every rank.
        part: the part in words.
    """

    step: int
    started: int
    order: int
    part: str


@dataclass(frozen=True)
class Heartbeat:
    """What a worker says about itself.

    Attributes:
        stack: of the thread that trains, the innermost call last; "" while it moves on.
        waits: whether it waits for other ranks, as far as its stack shows.
        ended: the training has ended on this rank, or failed.
    """

    rank: int
    host: str
    position: Position
    stack: str = ""
    waits: bool = False
    ended: bool = False


@contextmanager
def heartbeats(
    rank: int, position: Callable[[], Position], send: Callable[[Heartbeat], None], every_s: float
) -> Iterator[None]:
    """Sends heartbeats of the calling thread's training within the block, from another thread."""
    trains, host, over = threading.get_ident(), socket.gethostname(), threading.Event()

    def run() -> None:
        before = position()
        while not over.wait(every_s):
            now = position()
            frame = sys._current_frames().get(trains) if now == before else None
            before = now
            stack, waits = ("", False) if frame is None else (_text(frame), _waits(frame))
            with suppress(Exception):  # The driver, or its channel, may have ended.
                send(Heartbeat(rank, host, now, stack, waits))

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    send(Heartbeat(rank, host, position()))
    thread.start()
    try:
        yield
    finally:
        over.set()
        with suppress(Exception):
            send(Heartbeat(rank, host, position(), ended=True))


def _text(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame))


def _waits(frame: FrameType) -> bool:
    """Whether the innermost calls are those of torch in which ranks meet."""
    innermost = traceback.extract_stack(frame)[-3:]
    return any(waiting in call.filename for call in innermost for waiting in _WAITING)
