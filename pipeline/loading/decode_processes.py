"""DecodeProcesses: processes that fill batches, each with the threads of a DecodePool, for trainers with many cores.

Threads of one process need its interpreter's lock between two library calls, so more than about 8 of them gain nothing;
each process has its own lock. Each process fills its rows of every batch, in memory shared with the trainer, which
copies a complete batch out.

    trainer -> process    for a batch: its slot in the shared memory, the process's rows, their samples and views
    process -> trainer    the rows of damaged samples and the time of each part, or the error that occurred

Messages go over a pipe, and a process ends when its pipe is closed: when the loader is closed or garbage-collected, and
when the trainer is killed. The processes are plain interpreters instead of children of `multiprocessing`, which would
import the trainer's main module again. They run in a session of their own, because the trainer handles Ctrl-C and stop
signals.
"""

from __future__ import annotations

import contextlib
import logging
import math
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from time import perf_counter
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import WorkError
from pipeline.loading.augment import ViewParameters
from pipeline.loading.decode_pool import DamagedRow, DecodePool, PendingImages
from pipeline.loading.part_times import PartSeconds, PartTimes
from pipeline.loading.reader import SampleReader

_log = logging.getLogger("tutelage.loading")

_Answer = tuple[list[DamagedRow], PartSeconds]

# Time for a process to abandon a read in progress.
_EXIT_TIMEOUT_S = 10.0


class _ProcessRows(NamedTuple):
    """The rows of a batch that one process fills."""

    slot: int
    shape: tuple[int, int, int, int]
    first_row: int
    ids: NDArray[np.int64]
    views: ViewParameters | None


class _Settings(NamedTuple):
    """The first message to a process."""

    open_reader: Callable[[], SampleReader]
    slots: int
    slot_bytes: int
    threads: int
    channels: int
    memory_format: torch.memory_format
    crop_only: bool


class DecodeProcesses:
    """A context like DecodePool, but its processes live until `close`, because starting them takes seconds.

    One thread must wait for the batches in the order of submission. If a process dies, all are replaced and the pending
    batches are submitted again; a second death during the same batch is an error.

    Args:
        reader: reads the samples; each process opens its own.
        processes: number of processes.
        threads: number of threads in each process.
        channels: 3 for RGB, 1 for grey.
        slot_bytes: size of the largest batch in bytes.
        max_pending: maximum number of pending batches.
        pinned, memory_format, crop_only, times: see DecodePool.

    Attributes:
        restarts: number of times the processes were replaced.
    """

    def __init__(
        self,
        reader: SampleReader,
        *,
        processes: int,
        threads: int,
        channels: int,
        slot_bytes: int,
        max_pending: int,
        pinned: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
        crop_only: bool = False,
        times: PartTimes | None = None,
    ) -> None:
        self.restarts = 0
        self._times = times or PartTimes()
        self._reader = reader
        self._count = processes
        self._settings = _Settings(
            reader.opener(), max_pending, slot_bytes, threads, channels, memory_format, crop_only
        )
        self._pinned = pinned
        self._processes: _Processes | None = None
        self._pending: deque[_Batch] = deque()

    def __enter__(self) -> Self:
        if self._processes is None:
            self._processes = _Processes(self._settings, self._count)
            self._free_slots = list(range(self._settings.slots))
        # Decodes the substitutes of damaged samples.
        self._substitutes = DecodePool(
            self._reader,
            channels=self._settings.channels,
            threads=1,
            crop_only=self._settings.crop_only,
            times=self._times,
        )
        self._substitutes.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._substitutes.__exit__(kind, error, trace)
        if self._pending:
            # Left early: the next user of the processes would receive the answers to these pending batches.
            self.close()

    def close(self) -> None:
        """Ends the processes; entering the context again starts new ones."""
        if self._processes is not None:
            self._processes.end()
        self._processes = None
        self._pending.clear()

    def submit(self, ids: NDArray[np.int64], image_size: int, views: ViewParameters | None = None) -> PendingImages:
        """Starts to fill a batch with these samples, `image_size` pixels a side, augmented by `views`."""
        shape = (len(ids), self._settings.channels, image_size, image_size)
        batch = _Batch(self, self._free_slots.pop(), shape, ids, views)
        self._pending.append(batch)
        self._request(batch)
        return batch

    def fill(self, images: Tensor, row: int, id: int, views: ViewParameters | None) -> None:
        """Fills one row of a batch with a sample.

        Raises:
            DamagedSampleError: the sample could not be read or decoded.
        """
        self._substitutes.fill(images, row, id, views)

    def _request(self, batch: _Batch) -> None:
        assert self._processes is not None
        total, views = len(batch.ids), batch.views
        for number in range(self._count):
            rows = slice(total * number // self._count, total * (number + 1) // self._count)
            own_views = None if views is None else views.select(rows)
            self._processes.send(
                number,
                _ProcessRows(batch.slot, batch.shape, rows.start, batch.ids[rows], own_views),
            )

    def _collect(self, batch: _Batch) -> tuple[Tensor, list[DamagedRow]]:
        """The images of a complete batch, and the rows of damaged samples."""
        assert self._processes is not None
        assert batch is self._pending[0]
        try:
            damaged, seconds = self._processes.receive()
        except _DeadProcessError as lost:
            _log.warning("%s; all are replaced", lost)
            self.restarts += 1
            self._processes.end()
            self._processes = _Processes(self._settings, self._count)
            for pending in self._pending:
                self._request(pending)
            damaged, seconds = self._processes.receive()
        began = perf_counter()
        memory_format = self._settings.memory_format
        images = torch.empty(batch.shape, dtype=torch.uint8, pin_memory=self._pinned, memory_format=memory_format)
        images.copy_(_images(self._processes.memory[batch.slot], batch.shape, memory_format))
        self._free_slots.append(self._pending.popleft().slot)
        self._times.add(seconds._replace(copy=perf_counter() - began))
        return images, damaged


class _Batch(PendingImages):
    def __init__(
        self,
        owner: DecodeProcesses,
        slot: int,
        shape: tuple[int, int, int, int],
        ids: NDArray[np.int64],
        views: ViewParameters | None,
    ) -> None:
        self.slot, self.shape, self.ids, self.views = slot, shape, ids, views
        self._owner = owner

    def damaged_rows(self) -> list[DamagedRow]:
        self.images, damaged = self._owner._collect(self)
        return damaged


class _DeadProcessError(WorkError):
    """A process ended unexpectedly."""


class _Processes:
    """Processes that were started together, and the memory they share with this process.

    Attributes:
        memory: uint8 [slots, bytes of the largest batch].
    """

    def __init__(self, settings: _Settings, count: int) -> None:
        self._connections: list[Connection[Any, Any]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        # Called at the latest when this object is garbage-collected.
        self.end = weakref.finalize(self, _end_processes, self._connections, self._processes)
        with _memory_file(settings.slots * settings.slot_bytes) as file:
            self.memory = _map_memory(file.fileno(), settings.slots, settings.slot_bytes)
            for _ in range(count):
                ours, theirs = Pipe()
                with theirs:
                    self._connections.append(ours)
                    self._processes.append(_start_process(theirs.fileno(), file.fileno()))
        for number in range(count):
            self.send(number, settings)

    def send(self, number: int, message: _ProcessRows | _Settings) -> None:
        with contextlib.suppress(ConnectionError):  # `receive` reports that the process has ended.
            self._connections[number].send(message)

    def receive(self) -> _Answer:
        """Receives the answers of all processes to the oldest batch: its damaged rows and the time of each part.

        Raises:
            _DeadProcessError: a process has ended.
            Exception: the error of a process.
        """
        damaged: list[DamagedRow] = []
        seconds = PartSeconds()
        for number, connection in enumerate(self._connections):
            try:
                answer: _Answer | Exception = connection.recv()
            except (EOFError, ConnectionError):
                raise self._death_error(number) from None
            if isinstance(answer, Exception):
                raise answer
            damaged += answer[0]
            seconds = seconds.plus(answer[1])
        return damaged, seconds

    def _death_error(self, number: int) -> _DeadProcessError:
        code = self._processes[number].wait()
        cause = f"ended with code {code}"
        if code < 0:
            cause = f"was killed by signal {-code} (if memory ran out, lower loader.processes)"
        return _DeadProcessError(f"decoding process {number + 1} of {len(self._processes)} {cause}")


def _start_process(pipe: int, memory: int) -> subprocess.Popen[bytes]:
    code = f"from pipeline.loading.decode_processes import serve; serve({pipe}, {memory})"
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.DEVNULL,
        pass_fds=(pipe, memory),
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


def _end_processes(connections: Sequence[Connection[Any, Any]], processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for connection in connections:
        connection.close()
    for process in processes:
        try:
            process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _memory_file(size: int) -> BinaryIO:
    """An unnamed file of `size` bytes, in memory if the system can; not in /dev/shm, which is small in containers."""
    in_memory = hasattr(os, "memfd_create")
    file = os.fdopen(os.memfd_create("tutelage-batches"), "r+b") if in_memory else tempfile.TemporaryFile()  # noqa: SIM115
    file.truncate(size)
    return file


def _map_memory(file: int, slots: int, slot_bytes: int) -> Tensor:
    """The shared memory, uint8 [slots, slot_bytes]."""
    return torch.frombuffer(mmap.mmap(file, slots * slot_bytes), dtype=torch.uint8).view(slots, slot_bytes)


def _images(slot: Tensor, shape: tuple[int, int, int, int], memory_format: torch.memory_format) -> Tensor:
    """The batch in a slot, uint8 [B, C, H, W]."""
    size, channels, height, width = shape
    memory = slot[: math.prod(shape)]
    if memory_format == torch.channels_last:
        return memory.view(size, height, width, channels).permute(0, 3, 1, 2)
    return memory.view(shape)


def serve(pipe: int, file: int) -> None:
    """The main function of a process: fills its rows of each requested batch until the pipe is closed.

    Args:
        pipe, file: file descriptors of its end of the pipe and of the shared memory.
    """
    connection: Connection[Any, Any] = Connection(pipe)
    with contextlib.suppress(EOFError, ConnectionError), ThreadPoolExecutor(1) as answers:
        settings: _Settings = connection.recv()
        try:
            reader = settings.open_reader()
        except Exception as error:
            connection.send(_picklable(error))
            return
        memory = _map_memory(file, settings.slots, settings.slot_bytes)
        times = PartTimes()
        with DecodePool(
            reader, channels=settings.channels, threads=settings.threads, crop_only=settings.crop_only, times=times
        ) as pool:
            while True:
                request: _ProcessRows = connection.recv()
                images = _images(memory[request.slot], request.shape, settings.memory_format)
                images = images[request.first_row : request.first_row + len(request.ids)]
                pending = pool.submit_into(images, request.ids, request.views)
                answers.submit(_answer, connection, pending, request.first_row, times)


def _answer(connection: Connection[Any, Any], pending: PendingImages, first_row: int, times: PartTimes) -> None:
    answer: _Answer | Exception
    try:
        damaged = [(first_row + row, error) for row, error in pending.damaged_rows()]
        answer = damaged, times.take()
    except Exception as error:
        answer = _picklable(error)
    connection.send(answer)


def _picklable(error: Exception) -> Exception:
    """The error with its traceback as a note, because pickling drops tracebacks."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # It cannot be pickled.
        error = RuntimeError(repr(error)).with_traceback(error.__traceback__)
    error.add_note("in a decoding process:\n" + "".join(traceback.format_exception(error)))
    return error
