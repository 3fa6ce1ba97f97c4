"""Decodes images in separate processes, so that a crash of a decoder loses one sample and not the run.

Native decoders read untrusted bytes, and some file will crash one with SIGSEGV. A process examines one image at a
time; idle processes are reused by the next thread. They exit when their pipe closes, however this process ends.
Measured: 0.6 s and 50 MB per process, 0.15 ms per image of 90 kB.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, Pipe
from typing import Any

from pipeline.errors import WorkError
from pipeline.sharding.writing.images import Encoded, ImagesConfig, UnreadableError, prepare_image

_DECODE_TIMEOUT_S = 300.0  # for one image
_CRASH_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
)


def prepare_image_in_subprocess(data: bytes, config: ImagesConfig, *, with_difference_hash: bool) -> Encoded:
    """Runs `prepare_image` in another process.

    Raises:
        UnreadableError: as `prepare_image`, or the image crashes its decoder or takes it more than 5 minutes.
        WorkError: the process was killed twice for another reason, such as lack of memory.
    """
    for attempt in (1, 2):
        process = _pool.acquire()
        try:
            encoded = process.prepare(data, config, with_difference_hash)
        except _ProcessEndedError as error:
            if -error.code in _CRASH_SIGNALS:
                name = signal.Signals(-error.code).name
                raise UnreadableError(f"crashes its decoder ({name})", len(data)) from None
            if attempt == 2:
                raise WorkError(
                    f"a process that decodes images was killed twice (exit code {error.code}); if memory is short, "
                    "lower data.writers or images.max_decoded_mib"
                ) from None
            continue
        except UnreadableError:
            _pool.release(process)
            raise
        _pool.release(process)
        return encoded
    raise AssertionError("the second attempt returns or raises")


class _ProcessEndedError(Exception):
    """The process ended instead of answering; `code` is its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Process:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._connection, child_end = Pipe()
        code = f"from pipeline.sharding.writing.image_process import serve; serve({child_end.fileno()})"
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
        with child_end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=(child_end.fileno(),),
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )

    def prepare(self, data: bytes, config: ImagesConfig, with_difference_hash: bool) -> Encoded:
        try:
            self._connection.send((data, config, with_difference_hash))
            if not self._connection.poll(_DECODE_TIMEOUT_S):
                self._process.kill()
                self._process.wait()
                raise UnreadableError(f"is not decoded within {_DECODE_TIMEOUT_S:g} s", len(data))
            answer: Encoded | UnreadableError = self._connection.recv()
        except (EOFError, OSError):  # OSError if the process ends in the middle of an answer
            self._connection.close()
            raise _ProcessEndedError(self._process.wait()) from None
        if isinstance(answer, UnreadableError):
            raise answer
        # Unchanged bytes are not sent back.
        return answer if answer.data else answer.with_data(data)

    def is_usable(self) -> bool:
        # A fork of the owner must not use the owner's pipe.
        return self.owner == os.getpid() and self._process.poll() is None


class _Pool:
    """The idle processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Process] = []

    def acquire(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_usable():
                    return process
        return _Process()

    def release(self, process: _Process) -> None:
        with self._lock:
            if process.is_usable():
                self._idle.append(process)


_pool = _Pool()


def serve(pipe: int) -> None:
    """The main loop of a process: runs `prepare_image` on received images until the pipe, a descriptor, is closed."""
    connection: Connection[Any, Any] = Connection(pipe)
    with contextlib.suppress(EOFError, OSError):
        while True:
            data, config, with_difference_hash = connection.recv()
            try:
                encoded = prepare_image(data, config, with_difference_hash=with_difference_hash)
            except UnreadableError as error:
                connection.send(error)
                continue
            connection.send(encoded.with_data(b"") if encoded.data is data else encoded)
