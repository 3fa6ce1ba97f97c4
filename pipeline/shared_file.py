"""SharedFile: memory that unrelated processes of one machine share through a mapped file, while any of them uses it.

The first process creates the file, filled with zeros, and the last one removes it. Each user holds a shared lock on it,
which the system releases when a process ends. A file without a lock was left by killed processes: it is never read
again, and the next user or the next run removes it. Its name contains the machine, because the memory of two machines
that share a file system is not the same.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO

from pipeline.file_lock import file_lock, open_lock, try_lock
from pipeline.owners import LEFT_OVER_AFTER_S, machine_name

_SUFFIX = ".shared"
# A file may take this fraction of the free space of its disk.
_MAX_SHARE_OF_FREE = 0.25


class SharedFile:
    """The memory of a shared file, until it is garbage-collected or the process ends.

    Args:
        folder: folder of the shared files of a program; created if missing.
        name: the same in all processes that share the memory.
        size: in bytes; the same in all processes. The space is reserved on the disk.
    Attributes:
        memory: the mapped file.
    Raises:
        OSError: the disk has too little space, or the file system cannot reserve it.
        WorkError: the file system has no locks.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        path = folder / f"{machine_name()}-{name}{_SUFFIX}"
        with file_lock(folder / "lock"):
            file = _open_shared(path, size)
        # The map holds the lock too: it has a descriptor of the same open file.
        self.memory = mmap.mmap(file.fileno(), size)
        weakref.finalize(self, _leave, path, file)


def _open_shared(path: Path, size: int) -> IO[bytes]:
    """Opens the file, or creates it, and takes a shared lock; the caller holds the folder's lock."""
    file = open_lock(path)
    if try_lock(file):
        # New, or left by killed processes. It is not emptied, since a child of theirs may still have mapped it.
        path.unlink()
        file.close()
        if size > _MAX_SHARE_OF_FREE * shutil.disk_usage(path.parent).free:
            raise OSError(f"{path.parent}: the disk has too little free space for {size / 1e6:.0f} MB")
        file = open_lock(path)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        # Writing to a mapped page for which the disk has no space would end the process (SIGBUS).
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        _remove_if_unused(path, file)
        raise
    return file


def _leave(path: Path, file: IO[bytes]) -> None:
    with suppress(OSError), file_lock(path.parent / "lock"):
        _remove_if_unused(path, file)


def _remove_if_unused(path: Path, file: IO[bytes]) -> None:
    with file:
        if try_lock(file):
            path.unlink(missing_ok=True)


def sweep_shared_files(folder: Path) -> list[str]:
    """Removes shared files that killed processes left; returns their paths."""
    swept: list[str] = []
    if not folder.is_dir():
        return swept
    with file_lock(folder / "lock"):
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            # The locks of another machine may not be visible here.
            known = path.name.startswith(machine_name()) or time.time() - path.stat().st_mtime > LEFT_OVER_AFTER_S
            with open_lock(path) as file:
                if known and try_lock(file):
                    path.unlink()
                    swept.append(str(path))
    return swept
