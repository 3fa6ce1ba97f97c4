"""The folder of a node started on this machine: its path is short enough for sockets, and only its user can read it.

The process that owns a folder holds a lock on a file in it, which the kernel releases when the process ends in any
way; a folder with a free lock is abandoned, and is removed. Unlike process ids, that works across containers that share
a /tmp.
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
from pipeline.file_lock import take_lock, try_lock

_PREFIX = "tutelage-ray-"
# A Unix socket's path has at most 107 bytes; our folder, "session_DATE_TIME_PID" and "sockets/..." follow the parent.
_MAX_PARENT_BYTES = 19
_OTHER_PARENTS = ("/tmp", "/var/tmp", "/dev/shm")


class NodeFolder:
    """The folder of one node, with Ray's session and the token that every client needs.

    Attributes:
        path: the folder, mode 0700.
        session: the folder for Ray's session; Ray makes it accessible to all users, but they cannot enter `path`.
        token: the file with the token, mode 0600.
    """

    def __init__(self) -> None:
        remove_abandoned()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent_folder()))
        # Renamed after it is locked, because other processes remove folders whose file "owner" is not locked.
        lock_file = self.path / "making"
        self._lock = lock_file.open("xb")
        take_lock(self._lock)
        lock_file.rename(self.path / "owner")
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


def parent_folder() -> Path:
    """The parent of a node's folder: TMPDIR, or another temporary folder if its name is too long for sockets.

    Raises:
        InputError: none of them can be used.
    """
    for folder in _possible_parents():
        if len(os.fsencode(folder)) <= _MAX_PARENT_BYTES and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise InputError(
        f"no folder for Ray's sockets: {' and '.join(map(str, _possible_parents()))} cannot be written or have names "
        f"of more than {_MAX_PARENT_BYTES} bytes; set TMPDIR to a folder that can be written and has a short name"
    )


def remove_abandoned() -> None:
    """Removes this user's abandoned folders."""
    for folder in _possible_parents():
        with contextlib.suppress(OSError):
            for session in list(folder.glob(f"{_PREFIX}*")):
                with contextlib.suppress(OSError, WorkError), _is_abandoned(session) as dead:
                    if dead:
                        shutil.rmtree(session, ignore_errors=True)


@contextlib.contextmanager
def _is_abandoned(session: Path) -> Iterator[bool]:
    """Whether a folder's owner has ended; holds the folder's lock meanwhile, so that only one process removes it."""
    if session.is_symlink() or session.stat().st_uid != os.geteuid():
        yield False
        return
    with (session / "owner").open("r+b") as lock:
        yield try_lock(lock)


def _possible_parents() -> list[Path]:
    with contextlib.suppress(FileNotFoundError):  # No temporary folder at all.
        return list(dict.fromkeys([Path(tempfile.gettempdir()), *map(Path, _OTHER_PARENTS)]))
    return [Path(name) for name in _OTHER_PARENTS]
