"""The folder of a node started on this machine: its path is short enough for sockets, and only its owner can read it.

The owner holds a lock on a file in its folder, which the kernel releases when the owner ends in any way; a folder with
a free lock is abandoned, and is removed. That works across containers that share a /tmp, unlike process ids.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.errors import InputError, WorkError
from pipeline.whole_files import take_lock, try_lock

_PREFIX = "tutelage-ray-"
# A Unix socket's path has at most 107 bytes; our folder, "session_DATE_TIME_PID" and "sockets/..." follow this one.
_LONGEST = 19
_SPARE = ("/tmp", "/var/tmp", "/dev/shm")


class NodeFolder:
    """The folder of one node, with Ray's session and the token that every client needs.

    Attributes:
        path: the folder, mode 0700.
        session: the folder for Ray, which makes it and its sockets accessible to all users.
        token: the file with the token, mode 0600.
    """

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base()))
        making = self.path / "making"
        self._lock = making.open("xb")
        take_lock(self._lock)
        making.rename(self.path / "owner")
        self.session = self.path / "s"
        self.token = self.path / "token"
        with os.fdopen(os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(_token())

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


@cache
def _token() -> str:
    """The token, one per process, since Ray's C++ code reads it once."""
    return secrets.token_hex(32)


def base() -> Path:
    """The parent of a node's folder: TMPDIR, or the first of the alternatives if its name is too long for sockets.

    Raises:
        InputError: none of them can be used.
    """
    for folder in _bases():
        if len(os.fsencode(folder)) <= _LONGEST and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise InputError(
        f"no folder for Ray's sockets: {' and '.join(map(str, _bases()))} cannot be written or have names of more than "
        f"{_LONGEST} bytes; set TMPDIR to a folder that can be written and has a short name"
    )


def sweep() -> None:
    """Removes this user's abandoned folders."""
    for folder in _bases():
        with contextlib.suppress(OSError):
            for found in list(folder.glob(f"{_PREFIX}*")):
                with contextlib.suppress(OSError, WorkError), _abandoned(found) as dead:
                    if dead:
                        shutil.rmtree(found, ignore_errors=True)


@contextlib.contextmanager
def _abandoned(found: Path) -> Iterator[bool]:
    """Whether a folder's owner has ended; holds the folder's lock meanwhile, so that only one process removes it."""
    if found.is_symlink() or found.stat().st_uid != os.geteuid():
        yield False
        return
    with (found / "owner").open("r+b") as lock:
        yield try_lock(lock)


def _bases() -> list[Path]:
    with contextlib.suppress(FileNotFoundError):  # No temporary folder at all.
        return list(dict.fromkeys([Path(tempfile.gettempdir()), *map(Path, _SPARE)]))
    return [Path(name) for name in _SPARE]
