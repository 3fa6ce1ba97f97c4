"""DecodePool: threads that read and decode samples into preallocated uint8 batches.

A batch is handed to the threads in pieces, so that one batch uses all of them, and comes back
whole and in the order it was asked for. A damaged sample leaves its row empty, and whoever waits for the
batch decides what becomes of it; any other error in a thread reaches them.
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

from pipeline.loading.augment import ViewParameters
from pipeline.loading.decode import Crop, decode
from pipeline.loading.quarantine import DamagedSampleError
from pipeline.loading.reader import SampleReader

# Samples a thread takes at a time: 1 to 10 ms of work, so that stopping never takes longer.
_PIECE = 8

DamagedRow = tuple[int, DamagedSampleError]
"""A row of a batch, and what is wrong with its sample."""


@dataclass(frozen=True)
class PendingImages:
    """A batch that threads are filling."""

    images: Tensor
    pieces: Sequence[Future[list[DamagedRow]]]

    def damaged(self) -> list[DamagedRow]:
        """Once the batch is full: the rows whose samples are damaged, which hold no image."""
        return [damaged for piece in self.pieces for damaged in piece.result()]

    def wait(self) -> Tensor:
        """The batch, uint8 [B, C, H, W], once it is full.

        Raises:
            DamagedSampleError: a sample could not be read or decoded.
        """
        for _, error in self.damaged():
            raise error
        return self.images


class DecodePool:
    """A context that owns the threads; when it is left they have ended.

    Args:
        reader: where the samples are.
        channels: 3 for RGB, 1 for grey.
        threads: how many.
        pinned: fill page-locked memory, from which a GPU copies while it computes.
        memory_format: of the batches; channels_last, as decoders leave pixels, costs no reordering.
    """

    def __init__(
        self,
        reader: SampleReader,
        *,
        channels: int,
        threads: int,
        pinned: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self._reader = reader
        self._channels = channels
        self._pinned = pinned
        self._memory_format = memory_format
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def submit(self, ids: NDArray[np.int64], image_size: int, views: ViewParameters | None = None) -> PendingImages:
        """Starts to fill a batch with these samples, `image_size` pixels a side; with `views`, only what they crop."""
        self._reader.prefetch(ids)
        shape = (len(ids), self._channels, image_size, image_size)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned, memory_format=self._memory_format)
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

    def fill(self, images: Tensor, row: int, id: int, views: ViewParameters | None) -> None:
        """Fills one row of a batch with a sample, in the caller's thread.

        Raises:
            DamagedSampleError: it could not be read or decoded.
        """
        crop = None if views is None else views.crop(row)
        self._decode_into(images.numpy(), row, id, crop)

    def _fill(
        self, images: NDArray[np.uint8], ids: NDArray[np.int64], views: ViewParameters | None, start: int
    ) -> list[DamagedRow]:
        damaged = []
        for row in range(start, min(start + _PIECE, len(ids))):
            try:
                self._decode_into(images, row, int(ids[row]), None if views is None else views.crop(row))
            except DamagedSampleError as error:
                damaged.append((row, error))
        return damaged

    def _decode_into(self, images: NDArray[np.uint8], row: int, id: int, crop: Crop | None) -> None:
        size = images.shape[-1]
        data = self._reader.read(id)
        try:
            pixels = decode(data, size=size, channels=self._channels, crop=crop)
        except ValueError:
            data = self._reader.read(id, anew=True)
            try:
                pixels = decode(data, size=size, channels=self._channels, crop=crop)
            except ValueError as error:
                raise self._reader.damaged(
                    id, f"cannot be decoded ({error}), though its bytes are those that were written"
                ) from None
        # NumPy copies here, since a large copy by torch would start a thread pool in each of our threads.
        images[row] = pixels.numpy()
