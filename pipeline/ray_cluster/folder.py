"""The folder of a node that is started here: short enough for sockets, and nobody else's; swept when its owner is gone.

An owner holds a lock on a file in its folder, which the kernel releases however the owner ends; a folder whose
lock can be taken is nobody's. That holds across containers that share a /tmp, where process ids do not.
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
# A Unix socket's path has 107 bytes at most; below this folder come ours, "session_DATE_TIME_PID" and "sockets/...".
_LONGEST = 19
_SPARE = ("/tmp", "/var/tmp", "/dev/shm")


class NodeFolder:
    """Made for one node; holds Ray's session and the token without which nobody gets in.

    Attributes:
        path: the folder, mode 0700.
        session: for Ray, which lets everybody into the folder that it is given, and so to its sockets.
        token: file with the token, mode 0600.
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
    """One for the life of this process: Ray's C++ reads it once."""
    return secrets.token_hex(32)


def base() -> Path:
    """Where a node's folder can be made: TMPDIR, or the first spare one if its name is too long for sockets.

    Raises:
        InputError: nowhere.
    """
    for folder in _bases():
        if len(os.fsencode(folder)) <= _LONGEST and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise InputError(
        f"no folder for Ray's sockets: {' and '.join(map(str, _bases()))} cannot be written or have names of more than "
        f"{_LONGEST} bytes; set TMPDIR to a folder that can be written and has a short name"
    )


def sweep() -> None:
    """Removes the folders of owners that are gone, of this user."""
    for folder in _bases():
        with contextlib.suppress(OSError):
            for found in list(folder.glob(f"{_PREFIX}*")):
                with contextlib.suppress(OSError, WorkError), _nobodys(found) as dead:
                    if dead:
                        shutil.rmtree(found, ignore_errors=True)


@contextlib.contextmanager
def _nobodys(found: Path) -> Iterator[bool]:
    """Whether a folder's owner is gone; nobody else can find that out until this ends."""
    if found.is_symlink() or found.stat().st_uid != os.geteuid():
        yield False
        return
    with (found / "owner").open("r+b") as lock:
        yield try_lock(lock)


def _bases() -> list[Path]:
    with contextlib.suppress(FileNotFoundError):  # No temporary folder at all.
        return list(dict.fromkeys([Path(tempfile.gettempdir()), *map(Path, _SPARE)]))
    return [Path(name) for name in _SPARE]
