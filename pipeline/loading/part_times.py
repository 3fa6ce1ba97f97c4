"""The time that loading takes, by part: read, decode, augment, copy."""

from __future__ import annotations

import threading
from typing import NamedTuple


class PartSeconds(NamedTuple):
    """Seconds by part, summed over threads, and the number of images they were spent on.

    Attributes:
        read: from disk or network, waiting included.
        decode: decoding, cropping and resizing.
        augment: changes of colour, flips and erasing; 0 where the training device makes them.
        copy: out of the memory that decoding processes share with the trainer.
    """

    images: float = 0.0
    read: float = 0.0
    decode: float = 0.0
    augment: float = 0.0
    copy: float = 0.0

    def plus(self, other: PartSeconds) -> PartSeconds:
        return PartSeconds(*(one + more for one, more in zip(self, other, strict=True)))


class PartTimes:
    """Adds up the seconds of all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sum = PartSeconds()

    def add(self, seconds: PartSeconds) -> None:
        with self._lock:
            self._sum = self._sum.plus(seconds)

    def take(self) -> PartSeconds:
        """The sums since the last call."""
        with self._lock:
            taken, self._sum = self._sum, PartSeconds()
        return taken
