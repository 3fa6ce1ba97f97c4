"""Streams: every sample once an epoch, shuffled so that each rank reads few shards at a time.

    blocks    consecutive samples of a shard; each epoch shuffles all blocks of the data set
    streams   that order is cut into C streams of equal length, for any number of ranks
    windows   a stream is shuffled within windows of several blocks
    batch     takes the next samples of every stream; a rank gets those of its own streams

Each of W ranks has about C / W streams open, with one window each: it reads only the shards of those blocks, from end
to end, which is fast on disks and needs few, long requests to an object store. Batches still mix samples from C
locations in the data set. The number of streams depends on the run and not on the machines, so the global batches are
the same for any W. Planning stores 16 bytes for each block and 4 for each sample of the open windows, not an order of
all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import Config
from pipeline.counter_rng import generator
from pipeline.errors import InputError
from pipeline.loading.policies.base import StatelessPolicy
from pipeline.loading.policies.row_runs import RowRuns

if TYPE_CHECKING:
    from pipeline.sharding.format.index import SampleIndex


class StreamsConfig(Config):
    """A shuffle that reads shards sequentially: for data in S3, on hard disks, or with many millions of samples."""

    kind: Literal["streams"] = Field(
        "streams", description="Sequential reads with a shuffle buffer: every sample once per epoch."
    )
    streams: int = Field(
        64,
        ge=1,
        le=65_536,
        description="Number of streams, i.e. positions in the data set from which a global batch is mixed.",
    )
    block: int = Field(
        1000, ge=1, le=10_000_000, description="Number of consecutive samples of a shard that are read together."
    )
    window_blocks: int = Field(8, ge=1, le=100_000, description="Size of the shuffle buffer of a stream, in blocks.")

    def build(self, index: SampleIndex, rows: RowRuns, global_batch: int, seed: int) -> Streams:
        """The policy over the samples `rows` of the index."""
        return Streams(
            rows, global_batch, seed, streams=self.streams, block=self.block, window=self.block * self.window_blocks
        )


class Streams(StatelessPolicy):
    """A continuous stream of epochs; each permutes the blocks, and then the samples in the windows of C streams.

    Args:
        rows: ids to sample from.
        global_batch: G; may be larger than the number of rows.
        seed: the run's random seed.
        streams: C; at most the number of rows.
        block: number of consecutive ids that stay together.
        window: number of positions of a stream that are shuffled together.
    Raises:
        InputError: there are no rows, or the batch is empty.
    """

    def __init__(
        self, rows: RowRuns, global_batch: int, seed: int, *, streams: int = 64, block: int = 1000, window: int = 8000
    ) -> None:
        if len(rows) == 0:
            raise InputError("there are no samples to train on: the split is empty; see the data card of the shards")
        if global_batch < 1:
            raise InputError(f"global_batch: must be at least 1 (got {global_batch})")
        self.global_batch = global_batch
        self._samples = len(rows)
        self._streams = min(streams, self._samples)
        self._window = window
        self._seed = seed
        self._first, self._length = rows.blocks(block)
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._windows: dict[int, tuple[tuple[int, int], NDArray[np.int32]]] = {}  # the last window of each stream

    def batch(self, step: int) -> NDArray[np.int64]:
        return self.ids(step * self.global_batch, (step + 1) * self.global_batch)

    def ids(self, start: int, stop: int) -> NDArray[np.int64]:
        """The samples at positions [start, stop) of the concatenated epochs, int64 [stop - start], sorted by stream."""
        if start == stop:
            return np.empty(0, np.int64)
        overall = np.arange(start, stop, dtype=np.int64)
        epochs, positions = np.divmod(overall, self._samples)
        streams = positions % self._streams
        # Sorted by stream, so that the slice of a rank has the same streams in every step.
        order = np.lexsort((overall, streams))
        ids = np.empty(stop - start, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            in_epoch = epochs[order] == epoch
            ids[in_epoch] = self._ids_of(epoch, streams[order][in_epoch], positions[order][in_epoch] // self._streams)
        self._forget(int(epochs[0]))
        return ids

    def epoch(self, step: int) -> int:
        return step * self.global_batch // self._samples

    def _ids_of(self, epoch: int, streams: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples at `positions` of `streams`, each [n], of an epoch; `streams` ascending."""
        shuffled = np.empty_like(positions)
        pairs = streams * (self._samples // self._window + 2) + positions // self._window
        borders = np.flatnonzero(np.diff(pairs)) + 1
        for rows in np.split(np.arange(len(positions)), borders):
            stream, window = int(streams[rows[0]]), int(positions[rows[0]]) // self._window
            order = self._window_order(epoch, stream, window)
            shuffled[rows] = window * self._window + order[positions[rows] - window * self._window]
        # Where each stream begins in the epoch's blocks; stream c fills the positions c, c + C, ... of the epoch.
        longer = self._samples % self._streams
        length = self._samples // self._streams
        begin = streams * length + np.minimum(streams, longer)
        return self._at(epoch, begin + shuffled)

    def _at(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples at positions in the epoch's concatenated blocks."""
        if epoch not in self._epochs:
            order = generator(self._seed, "blocks", epoch).permutation(len(self._first))
            self._epochs[epoch] = order, np.cumsum(self._length[order])
        order, ends = self._epochs[epoch]
        block = np.searchsorted(ends, positions, side="right")
        ids: NDArray[np.int64] = self._first[order[block]] + positions - (ends[block] - self._length[order[block]])
        return ids

    def _window_order(self, epoch: int, stream: int, window: int) -> NDArray[np.int32]:
        cached = self._windows.get(stream)
        if cached is not None and cached[0] == (epoch, window):
            return cached[1]
        length = self._samples // self._streams + (stream < self._samples % self._streams)
        order = np.arange(min(self._window, length - window * self._window), dtype=np.int32)
        generator(self._seed, "window", epoch, stream, window).shuffle(order)
        self._windows[stream] = (epoch, window), order
        return order

    def _forget(self, epoch: int) -> None:
        for stale in [cached for cached in self._epochs if cached < epoch]:
            del self._epochs[stale]
