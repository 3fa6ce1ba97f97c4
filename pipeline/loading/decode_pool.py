"""DecodePool: threads that read and decode samples into preallocated uint8 batches.

A batch is handed to the threads in pieces, so that one batch uses all of them, and comes back
whole and in the order it was asked for. A damaged sample leaves its row empty, and whoever waits for the
batch decides what becomes of it; any other error in a thread reaches them.

The threads are torch's as well: each works on one core, since operations on a few images shared out between cores
take those many times as long (50 times, measured on two cores that decode and train), and what a CPU does to an image
after the crop is done by them too: so the thread that takes the batches, which trains, has no work for each image.
More than about 8 of them gain nothing, probably since all need the interpreter's lock between two calls of a library
(docs/benchmarks.md): DecodeProcesses has more.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.loading.augment import ViewParameters, apply_on_device
from pipeline.loading.decode import Crop, decode
from pipeline.loading.quarantine import DamagedSampleError
from pipeline.loading.reader import SampleReader

# What a thread takes at a time, 1 to 20 ms of work, so that stopping never takes longer: 10 samples at 224 pixels.
_PIECE_PIXELS, _PIECE_SAMPLES = 1 << 19, 16

DamagedRow = tuple[int, DamagedSampleError]
"""A row of a batch, and what is wrong with its sample."""


class PendingImages(ABC):
    """A batch that is being filled.

    Attributes:
        images: uint8 [B, C, H, W], full once `damaged` has answered.
    """

    images: Tensor

    @abstractmethod
    def damaged(self) -> list[DamagedRow]:
        """Once the batch is full: the rows whose samples are damaged, which hold no image."""

    def wait(self) -> Tensor:
        """The batch, uint8 [B, C, H, W], once it is full.

        Raises:
            DamagedSampleError: a sample could not be read or decoded.
        """
        for _, error in self.damaged():
            raise error
        return self.images


@dataclass(frozen=True)
class _Pieces(PendingImages):
    images: Tensor
    pieces: Sequence[Future[list[DamagedRow]]]

    def damaged(self) -> list[DamagedRow]:
        return [damaged for piece in self.pieces for damaged in piece.result()]


class DecodePool:
    """A context that owns the threads; when it is left they have ended.

    Args:
        reader: where the samples are.
        channels: 3 for RGB, 1 for grey.
        threads: how many.
        pinned: fill page-locked memory, from which a GPU copies while it computes.
        memory_format: of the batches; channels_last, as decoders leave pixels, costs no reordering.
        crop_only: leave all of a view but its crop to whoever takes the batch, who has a faster device for it.
    """

    def __init__(
        self,
        reader: SampleReader,
        *,
        channels: int,
        threads: int,
        pinned: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
        crop_only: bool = False,
    ) -> None:
        self._reader = reader
        self._channels = channels
        self._pinned = pinned
        self._memory_format = memory_format
        self._crop_only = crop_only
        self._count = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def submit(self, ids: NDArray[np.int64], image_size: int, views: ViewParameters | None = None) -> PendingImages:
        """Starts to fill a batch with these samples, `image_size` pixels a side, as `views` show them."""
        shape = (len(ids), self._channels, image_size, image_size)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned, memory_format=self._memory_format)
        return self.start(images, ids, views)

    def start(self, images: Tensor, ids: NDArray[np.int64], views: ViewParameters | None = None) -> PendingImages:
        """The same, into memory that is there: uint8 [B, C, size, size]."""
        self._reader.prefetch(ids)
        length = max(1, min(_PIECE_SAMPLES, _PIECE_PIXELS // images.shape[-1] ** 2))
        pieces = [
            self._threads.submit(self._fill, images, ids, views, slice(start, start + length))
            for start in range(0, len(ids), length)
        ]
        return _Pieces(images, pieces)

    def __enter__(self) -> Self:
        threads = torch.get_num_threads()
        started = threading.Barrier(self._count + 1)
        try:
            for _ in range(self._count):
                self._threads.submit(_stay_on_one_core, started)
            started.wait()
        except BaseException:
            started.abort()  # The machine has no thread left, or a Ctrl-C: those that wait would do so for ever.
            raise
        # The number is a thread's own, but the last one that was set is also what new threads begin with.
        torch.set_num_threads(threads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._reader.stop_prefetch()

    def fill(self, images: Tensor, row: int, id: int, views: ViewParameters | None) -> None:
        """Fills one row of a batch with a sample.

        Raises:
            DamagedSampleError: it could not be read or decoded.
        """
        ids = np.full(len(images), id)
        for _, error in self._threads.submit(self._fill, images, ids, views, slice(row, row + 1)).result():
            raise error

    def _fill(
        self, images: Tensor, ids: NDArray[np.int64], views: ViewParameters | None, rows: slice
    ) -> list[DamagedRow]:
        pixels, damaged = images.numpy().transpose(0, 2, 3, 1), []
        for row in range(*rows.indices(len(ids))):
            try:
                self._decode_into(pixels[row], int(ids[row]), None if views is None else views.crop(row))
            except DamagedSampleError as error:
                damaged.append((row, error))
        if views is not None and not self._crop_only:
            part = images[rows]
            shown = apply_on_device(part, views.part(rows))
            if shown.data_ptr() != part.data_ptr():
                part.copy_(shown)
        return damaged

    def _decode_into(self, row: NDArray[np.uint8], id: int, crop: Crop | None) -> None:
        size = len(row)
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
        row[:] = pixels


def _stay_on_one_core(started: threading.Barrier) -> None:
    # Asking comes first: a thread that has never asked takes over the number of all others when it first computes.
    torch.get_num_threads()
    torch.set_num_threads(1)
    started.wait()
