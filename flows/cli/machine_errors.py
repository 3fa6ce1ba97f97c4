"""One-line messages for errors of the machine (a full disk, rights, a broken file system): where, and what to do.

Libraries report them differently (PyArrow, safetensors, torch, SQLite), so causes and messages are matched, not only
types.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flows.cli.standard_files import NAMES
from pipeline.errors import TutelageError, first_line

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = re.compile(
    r"no space left|disk quota exceeded|file too large|disk is full|"
    r"os error (28|122|27)\b|errno (28|122|27)\b|requested and \d+ written",
    re.I,
)
# torch's writer of zip archives does not report the cause.
_PERHAPS_FULL_WORDS = re.compile(r"failed writing file|file write failed|unexpected pos", re.I)
_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.EREMOTEIO, errno.EUCLEAN)
_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_LITTLE = 16 << 20  # bytes; less free space counts as a full disk if the error does not name the cause


def machine_error_line(error: BaseException) -> str | None:
    """The line for an error caused by the state of the machine; None for any other error."""
    if isinstance(error, TutelageError):
        return None
    for cause, is_cause in _causes(error):
        if (line := _line(cause)) is not None:
            return line
        # An error raised while handling a missing file may be a defect of ours: only report the file as the cause
        # if the chain is explicit.
        if is_cause and isinstance(cause, OSError) and (where := _path(cause)):
            return f"{where}: {_reason(cause)}; check what is there, and that it can be read and written"
    return None


def _line(error: BaseException) -> str | None:
    number = error.errno if isinstance(error, OSError) else None
    where = _path(error)
    if where in NAMES.values():
        return f"{where}: cannot be written ({_reason(error)}); send it somewhere else"
    message = f"{where}: {_reason(error)}" if where else _reason(error)
    if number in _FULL or _FULL_WORDS.search(str(error)):
        return f"{_full(where)}; free some space there, or set {_variables()} to folders on another disk"
    if _PERHAPS_FULL_WORDS.search(str(error)) and _fullest()[1] < _LITTLE:
        return f"{_full(where)}; free some space there, or set {_variables()} to folders on another disk"
    if number in _RIGHTS:
        return f"{message}; give this user the right, or set {_variables()} to folders that can be written"
    if number in _BROKEN:
        return f"{message}; check that the disk or the network folder works"
    if number in _MANY_FILES:
        return f"{message}; raise the limit: ulimit -n 65536"
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return f"{message or 'no memory left'}; give it more memory, or lower batch, image size and writers"
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        return "no folder for temporary files can be written; set TMPDIR to one that can"
    return None


def _causes(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """The error and its chain of causes and contexts; True: all links so far are explicit causes."""
    seen: set[int] = set()
    current: BaseException | None = error
    is_cause = True
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current, is_cause
        is_cause = is_cause and current.__cause__ is not None
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _path(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or first_line(error)


def _full(where: str) -> str:
    """The line for a full disk: the path of the file if it is known, else the fullest folder that a run writes to."""
    folder = where or str(_fullest()[0])
    return f"{folder}: no space left on the disk"


def _fullest() -> tuple[Path, int]:
    """Of the folders that a run writes to, the one with the least free space, and its free bytes."""
    folders: list[tuple[int, Path]] = []
    for folder in _folders():
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        try:
            folders.append((shutil.disk_usage(folder).free, folder))
        except OSError:
            continue
    free, folder = min(folders, default=(0, Path()), key=lambda pair: pair[0])
    return folder, free


def _folders() -> Iterator[Path]:
    store = os.environ.get("TUTELAGE_STORE") or ".tutelage"
    if "://" not in store:
        yield Path(store).absolute()
    else:
        for variable in ("TUTELAGE_WORK", "XDG_CACHE_HOME", "HOME"):
            if os.environ.get(variable):
                yield Path(os.environ[variable]).absolute()
    try:
        yield Path(tempfile.gettempdir())
    except OSError:
        return


def _variables() -> str:
    """The environment variables that set the folders a run writes to."""
    store = os.environ.get("TUTELAGE_STORE") or ".tutelage"
    return "TUTELAGE_WORK, XDG_CACHE_HOME or TMPDIR" if "://" in store else "TUTELAGE_STORE or TMPDIR"
