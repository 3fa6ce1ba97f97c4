"""File locks between processes of one machine.

The system releases a lock when its process ends, so a killed holder does not block others.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.errors import WorkError


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds the lock of a file; creates the file and its folders.

    Raises:
        WorkError: the file cannot be used as a lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_lock(path)
    except OSError as error:
        raise lock_error(path, error) from None
    with file:
        take_lock(file)
        yield


def open_lock(path: Path) -> IO[bytes]:
    """Opens the file of a lock without locking it; creates it if it is missing.

    Raises:
        WorkError: the path is not a file, e.g. a folder, or cannot be written.
        FileNotFoundError: its folder does not exist.
    """
    try:
        # Not mode "a": on a named pipe it would wait for a reader forever.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise lock_error(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise lock_error(path, OSError(0, "it is not a file"))
    return os.fdopen(descriptor, "r+b")


def take_lock(file: IO[bytes], *, waiting: Callable[[], None] = lambda: None) -> None:
    """Takes the lock; waits until no other process holds it.

    Args:
        waiting: called if another process holds it.
    Raises:
        WorkError: the file system has no locks.
    """
    if not try_lock(file):
        waiting()
        fcntl.flock(file, fcntl.LOCK_EX)


def try_lock(file: IO[Any]) -> bool:
    """Takes the lock without waiting; False if another process holds it.

    Raises:
        WorkError: the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise lock_error(Path(str(file.name)), error) from None
    return True


def lock_error(path: Path, error: OSError) -> WorkError:
    """The error for a path that cannot be used as a lock."""
    reason = error.strerror or type(error).__name__
    return WorkError(f"{path}: cannot be used as a lock ({reason}); remove what is there or make its folder writable")
