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
from pipeline.sharding.writing.images import Encoded, ImagesConfig, UnreadableError, storable

_LONGEST_S = 300.0  # for one image
_FAULTS_OF_THE_IMAGE = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
)


def storable_apart(data: bytes, config: ImagesConfig, *, look: bool) -> Encoded:
    """Runs `storable` in another process.

    Raises:
        UnreadableError: as `storable`, or the image crashes its decoder or occupies it for more than 5 minutes.
        WorkError: the process was killed twice for another reason, such as lack of memory.
    """
    for attempt in (1, 2):
        process = _pool.take()
        try:
            encoded = process.ask(data, config, look)
        except _EndedError as error:
            if -error.code in _FAULTS_OF_THE_IMAGE:
                name = signal.Signals(-error.code).name
                raise UnreadableError(f"ends its decoder with {name}", len(data)) from None
            if attempt == 2:
                raise WorkError(
                    f"a process that decodes images was ended twice (code {error.code}); if memory is short: fewer "
                    "data.writers, or a lower images.max_decoded_mib"
                ) from None
            continue
        except UnreadableError:
            _pool.give_back(process)
            raise
        _pool.give_back(process)
        return encoded
    raise AssertionError("the second attempt returns or raises")


class _EndedError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Process:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._connection, theirs = Pipe()
        code = f"from pipeline.sharding.writing.image_process import serve; serve({theirs.fileno()})"
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )

    def ask(self, data: bytes, config: ImagesConfig, look: bool) -> Encoded:
        try:
            self._connection.send((data, config, look))
            if not self._connection.poll(_LONGEST_S):
                self._process.kill()
                self._process.wait()
                raise UnreadableError(f"occupies its decoder for more than {_LONGEST_S:g} s", len(data))
            answer: Encoded | UnreadableError = self._connection.recv()
        except (EOFError, OSError):  # OSError if the process ends in the middle of an answer
            self._connection.close()
            raise _EndedError(self._process.wait()) from None
        if isinstance(answer, UnreadableError):
            raise answer
        # Unchanged bytes are not sent back.
        return answer if answer.data else answer.with_data(data)

    def is_usable(self) -> bool:
        return self.owner == os.getpid() and self._process.poll() is None


class _Pool:
    """The idle processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Process] = []

    def take(self) -> _Process:
        with self._lock:
            while self._waiting:
                process = self._waiting.pop()
                if process.is_usable():
                    return process
        return _Process()

    def give_back(self, process: _Process) -> None:
        with self._lock:
            if process.is_usable():
                self._waiting.append(process)


_pool = _Pool()


def serve(pipe: int) -> None:
    """The main loop of a process: runs `storable` on received images until the pipe closes."""
    connection: Connection[Any, Any] = Connection(pipe)
    with contextlib.suppress(EOFError, OSError):
        while True:
            data, config, look = connection.recv()
            try:
                encoded = storable(data, config, look=look)
            except UnreadableError as error:
                connection.send(error)
                continue
            connection.send(encoded.with_data(b"") if encoded.data is data else encoded)
