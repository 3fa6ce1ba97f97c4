"""Files that processes share: written aside and renamed, so that one that is there is whole; JSON files; file locks.

A lock goes with the process that holds it, so a killed holder never blocks the next.
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


@contextmanager
def written_whole(path: Path, *, aside: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """A name to write a file under, which becomes `path` if the block ends well; else the file is removed.

    What a killed process leaves has a name that says so (owners.py).

    Args:
        aside: folder on the file system of `path` in which it is written; None: that of `path`. Both are created.
        durable: the bytes are on the disk before the file gets its name, so that a power cut leaves no empty file.
    """
    name = owned_name() if aside is not None else f".{path.name}.{owned_name()}"
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


def flush_to_disk(path: Path) -> None:
    """Returns when the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, *, sort_keys: bool = False, allow_nan: bool = True) -> None:
    """Writes a value as an indented JSON file in UTF-8.

    Raises:
        ValueError: there is a NaN or an infinity in it and `allow_nan` is false.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=sort_keys, allow_nan=allow_nan)
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file, which is created with its folders.

    Raises:
        WorkError: it cannot be a lock.
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
    """The file of a lock, created if need be, not yet locked.

    Raises:
        WorkError: something else is there, e.g. a folder, or it cannot be written.
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


def take_lock(file: IO[bytes], *, waiting: Callable[[], None] = lambda: None) -> None:
    """Takes the lock, when the process that holds it releases it.

    Args:
        waiting: called if another process holds it.
    Raises:
        WorkError: the file system has no locks.
    """
    if not try_lock(file):
        waiting()
        fcntl.flock(file, fcntl.LOCK_EX)


def try_lock(file: IO[Any]) -> bool:
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
