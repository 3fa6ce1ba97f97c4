"""Files shared by processes: atomic writes by rename, JSON files, file locks.

The system releases a lock when its process ends, so a killed holder does not block others.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.errors import WorkError
from pipeline.owners import owned_name

_NAME_BYTES = 64


@contextmanager
def atomic_write(path: Path, *, aside: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """A temporary file that is renamed to `path` at the end of the block, or removed if the block raises.

    Its name identifies its owner process, so that left-over files can be removed (owners.py).

    Args:
        aside: folder of the temporary file, on the same file system as `path`; None: that of `path`. Both are created.
        durable: flush the bytes to the disk before the rename, so that a power cut leaves no empty file.
    """
    name = owned_name() if aside is not None else f".{_start_of(path.name)}.{owned_name()}"
    unfinished = (aside or path.parent) / name
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield unfinished
        if durable:
            flush_to_disk(unfinished)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _start_of(name: str) -> str:
    """So much of a name that it fits into that of a temporary file; a file system allows 255 bytes."""
    return os.fsdecode(os.fsencode(name)[:_NAME_BYTES])


def flush_to_disk(path: Path) -> None:
    """Flushes the bytes of a file, or the names in a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, *, sort_keys: bool = False, allow_nan: bool = True) -> None:
    """Writes a value as an indented JSON file in UTF-8.

    Raises:
        ValueError: the value contains NaN or infinity, and `allow_nan` is false.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=sort_keys, allow_nan=allow_nan)
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file; creates the file and its folders.

    Raises:
        WorkError: the file cannot be used as a lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_lock(path)
    except OSError as error:
        raise unusable(path, error) from None
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
        raise unusable(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise unusable(path, OSError(0, "it is not a file"))
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
        raise unusable(Path(str(file.name)), error) from None
    return True


def unusable(path: Path, error: OSError) -> WorkError:
    """The error for a path that cannot be used as a lock."""
    reason = error.strerror or type(error).__name__
    return WorkError(f"{path}: cannot be used as a lock ({reason}); remove what is there or make its folder writable")
