"""DecodePool: threads that read and decode samples into preallocated uint8 batches.

A batch is split into pieces, so that it uses all threads. Batches complete in the order of submission. The row of a
damaged sample is left unfilled and reported to the caller, who decides what to do; any other error of a thread is
raised in the caller.

In these threads torch uses one core each: operations on a few images take many times as long when torch distributes
them over cores (50 times, measured on two cores that decode and train). The threads also apply the augmentations after
the crop on a CPU, so the training thread has no work for each image. More than about 8 threads gain nothing, probably
because all need the interpreter's lock between two library calls (docs/benchmarks.md): use DecodeProcesses for more.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.loading.augment import ViewParameters, apply_on_device
from pipeline.loading.decode import Crop, cut, decode, whole_pixels
from pipeline.loading.part_times import PartSeconds, PartTimes
from pipeline.loading.quarantine import DamagedSampleError
from pipeline.loading.reader import SampleReader

# The work of one task, 1 to 20 ms, which bounds the time to stop: 10 samples at 224 pixels.
_PIECE_PIXELS, _PIECE_SAMPLES = 1 << 19, 16

DamagedRow = tuple[int, DamagedSampleError]
"""A row of a batch, and the error of its sample."""


class PendingImages(ABC):
    """A batch that is being filled.

    Attributes:
        images: uint8 [B, C, H, W], complete after `damaged_rows` returns.
    """

    images: Tensor

    @abstractmethod
    def damaged_rows(self) -> list[DamagedRow]:
        """Waits for the batch; returns the rows of damaged samples, which have no image."""

    def wait(self) -> Tensor:
        """Waits for the batch; returns it, uint8 [B, C, H, W].

        Raises:
            DamagedSampleError: a sample could not be read or decoded.
        """
        for _, error in self.damaged_rows():
            raise error
        return self.images


@dataclass(frozen=True)
class _PendingPieces(PendingImages):
    images: Tensor
    pieces: Sequence[Future[list[DamagedRow]]]

    def damaged_rows(self) -> list[DamagedRow]:
        return [damaged for piece in self.pieces for damaged in piece.result()]


class DecodePool:
    """A context that owns the threads and joins them on exit.

    Args:
        reader: reads the samples.
        channels: 3 for RGB, 1 for grey.
        threads: number of threads.
        pinned: fill page-locked memory, from which a GPU copies while it computes.
        memory_format: of the batches; channels_last is the layout of decoders and needs no reordering.
        crop_only: apply only the crop of a view; the caller applies the rest on a faster device.
        times: receives the time of each part of loading; None: it is not kept.
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
        times: PartTimes | None = None,
    ) -> None:
        self._reader = reader
        self._times = times or PartTimes()
        cache = reader.decoded_cache
        self._decoded = cache if cache is not None and cache.channels == channels else None
        self._channels = channels
        self._pinned = pinned
        self._memory_format = memory_format
        self._crop_only = crop_only
        self._count = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def submit(self, ids: NDArray[np.int64], image_size: int, views: ViewParameters | None = None) -> PendingImages:
        """Starts to fill a batch with these samples, `image_size` pixels a side, augmented by `views`."""
        shape = (len(ids), self._channels, image_size, image_size)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned, memory_format=self._memory_format)
        return self.submit_into(images, ids, views)

    def submit_into(self, images: Tensor, ids: NDArray[np.int64], views: ViewParameters | None = None) -> PendingImages:
        """Like `submit`, but into existing memory: uint8 [B, C, size, size]."""
        self._reader.prefetch(ids if self._decoded is None else self._decoded.missing(ids))
        length = max(1, min(_PIECE_SAMPLES, _PIECE_PIXELS // images.shape[-1] ** 2))
        pieces = [
            self._threads.submit(self._fill, images, ids, views, slice(start, start + length))
            for start in range(0, len(ids), length)
        ]
        return _PendingPieces(images, pieces)

    def __enter__(self) -> Self:
        threads = torch.get_num_threads()
        started = threading.Barrier(self._count + 1)
        try:
            for _ in range(self._count):
                self._threads.submit(_use_one_core, started)
            started.wait()
        except BaseException:
            started.abort()  # The machine has no thread left, or Ctrl-C: the waiting threads would wait forever.
            raise
        # The number is per thread, but the value set last is also the default of new threads.
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
            DamagedSampleError: the sample could not be read or decoded.
        """
        ids = np.full(len(images), id)
        for _, error in self._threads.submit(self._fill, images, ids, views, slice(row, row + 1)).result():
            raise error

    def _fill(
        self, images: Tensor, ids: NDArray[np.int64], views: ViewParameters | None, rows: slice
    ) -> list[DamagedRow]:
        pixels, damaged = images.numpy().transpose(0, 2, 3, 1), []
        began, reading, filled = perf_counter(), 0.0, range(*rows.indices(len(ids)))
        for row in filled:
            try:
                reading += self._decode_into(pixels[row], int(ids[row]), None if views is None else views.crop(row))
            except DamagedSampleError as error:
                damaged.append((row, error))
        decoded = perf_counter()
        if views is not None and not self._crop_only:
            piece = images[rows]
            augmented = apply_on_device(piece, views.select(rows))
            if augmented.data_ptr() != piece.data_ptr():
                piece.copy_(augmented)
        augmenting = perf_counter() - decoded
        self._times.add(PartSeconds(len(filled), reading, decoded - began - reading, augmenting))
        return damaged

    def _decode_into(self, row: NDArray[np.uint8], id: int, crop: Crop | None) -> float:
        """Fills the row; returns the seconds that reading took."""
        size, began = len(row), perf_counter()
        if self._decoded is not None and (whole := self._decoded.get(id, size)) is not None:
            row[:] = cut(whole, size, crop)
            return 0.0
        data = self._reader.read(id)
        reading = perf_counter() - began
        try:
            pixels = self._decode(data, id, size, crop)
        except ValueError:
            data = self._reader.read(id, fresh=True)
            try:
                pixels = self._decode(data, id, size, crop)
            except ValueError as error:
                raise self._reader.damaged_error(
                    id, f"cannot be decoded ({error}), although its content hash matches"
                ) from None
        row[:] = pixels
        return reading

    def _decode(self, data: bytes, id: int, size: int, crop: Crop | None) -> NDArray[np.uint8]:
        """The view of a sample, uint8 [size, size, C]; its whole image is cached if that has a place."""
        cache = self._decoded
        if cache is not None and cache.has_place(id):
            whole = whole_pixels(data, size=cache.smallest_size, channels=self._channels)
            if whole is not None:
                cache.put(id, whole)
                if size >= cache.smallest_size:
                    return cut(whole, size, crop)
        return decode(data, size=size, channels=self._channels, crop=crop)


def _use_one_core(started: threading.Barrier) -> None:
    # The get call must come first: a thread that has never called it takes the global number at its first operation.
    torch.get_num_threads()
    torch.set_num_threads(1)
    started.wait()
