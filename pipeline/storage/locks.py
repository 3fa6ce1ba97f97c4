"""File locks: they go with the process that holds them, so a killed holder never blocks the next."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.errors import WorkError


@contextmanager
def locked(path: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock of a file, which is made with its folders.

    Args:
        waiting: called when there is somebody to wait for.
    Raises:
        WorkError: it cannot be a lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_lock(path)
    except OSError as error:
        raise unusable(path, error) from None
    with file:
        if not try_lock(file):
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_lock(path: Path) -> IO[bytes]:
    """The file of a lock, made if need be, not yet locked.

    Raises:
        WorkError: something else lies there, e.g. a folder, or it cannot be written.
        FileNotFoundError: its folder is not there.
    """
    try:
        # Not "a": that waits for ever for a reader where a named pipe lies.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unusable(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise unusable(path, OSError(0, "it is not a file"))
    return os.fdopen(descriptor, "r+b")


def try_lock(file: IO[bytes]) -> bool:
    """Takes the lock if nobody holds it.

    Raises:
        WorkError: the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise unusable(Path(str(file.name)), error) from None
    return True


def unusable(path: Path, error: OSError) -> WorkError:
    """The line for a lock that cannot be one."""
    reason = error.strerror or type(error).__name__
    return WorkError(f"{path}: cannot be used as a lock ({reason}); remove what lies there or make its folder writable")
