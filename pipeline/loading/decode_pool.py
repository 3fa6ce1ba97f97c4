"""DecodePool: threads that read and decode samples into preallocated uint8 batches.

A batch is handed to the threads in pieces, so that one batch uses all of them, and comes back
whole and in the order it was asked for. An error in a thread reaches whoever waits for the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DamagedError
from pipeline.loading.augment import ViewParameters
from pipeline.loading.decode import decode
from pipeline.loading.reader import SampleReader

# Samples a thread takes at a time: 1 to 10 ms of work, so that stopping never takes longer.
_PIECE = 8


@dataclass(frozen=True)
class PendingImages:
    """A batch that threads are filling."""

    images: Tensor
    pieces: Sequence[Future[None]]

    def wait(self) -> Tensor:
        """The batch, uint8 [B, C, H, W], once it is full.

        Raises:
            DamagedError: a sample could not be read or decoded.
        """
        for piece in self.pieces:
            piece.result()
        return self.images


class DecodePool:
    """A context that owns the threads; when it is left they have ended.

    Args:
        reader: where the samples are.
        channels: 3 for RGB, 1 for grey.
        threads: how many.
        pinned: fill page-locked memory, from which a GPU copies while it computes.
    """

    def __init__(self, reader: SampleReader, *, channels: int, threads: int, pinned: bool = False) -> None:
        self._reader = reader
        self._channels = channels
        self._pinned = pinned
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def submit(self, ids: NDArray[np.int64], image_size: int, views: ViewParameters | None = None) -> PendingImages:
        """Starts to fill a batch with these samples, `image_size` pixels a side; with `views`, only what they crop."""
        self._reader.prefetch(ids)
        shape = (len(ids), self._channels, image_size, image_size)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        pieces = [
            self._threads.submit(self._fill, images.numpy(), ids, views, start) for start in range(0, len(ids), _PIECE)
        ]
        return PendingImages(images, pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._reader.stop_prefetch()

    def _fill(
        self, images: NDArray[np.uint8], ids: NDArray[np.int64], views: ViewParameters | None, start: int
    ) -> None:
        for row in range(start, min(start + _PIECE, len(ids))):
            id = int(ids[row])
            data = self._reader.read(id)
            crop = None if views is None else views.crop(row)
            try:
                pixels = decode(data, size=images.shape[-1], channels=self._channels, crop=crop)
            except ValueError as error:
                raise DamagedError(
                    f"{self._reader.place(id)}: cannot be decoded ({error}); it could when it was written: "
                    "run `tutelage artifacts verify`"
                ) from None
            # NumPy copies here, since a large copy by torch would start a thread pool in each of our threads.
            images[row] = pixels.numpy()
