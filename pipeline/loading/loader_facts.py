"""What limits how fast a loader can be: its threads, and where and how large the stored images are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoaderFacts:
    """What limits how fast a loader can be.

    Attributes:
        threads, processes: settings of the loader; threads in each process.
        remote: the shards are not on this machine's disk.
        side: side of the training images in pixels.
        stored_side: median of the longer sides of the stored images.
    """

    threads: int
    processes: int
    remote: bool
    side: int
    stored_side: int

    @property
    def loading_threads(self) -> int:
        """The number of threads that load, in all processes."""
        return self.threads * max(1, self.processes)
