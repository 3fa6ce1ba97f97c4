"""What the machine refuses (a full disk, rights, a broken file system) in one line: where, and what to do.

Libraries say it in many ways (PyArrow, safetensors, torch, SQLite), so causes and words are looked at, not only types.
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
# torch's writer of zip archives says nothing of the cause.
_PERHAPS_FULL_WORDS = re.compile(r"failed writing file|file write failed|unexpected pos", re.I)
_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.EREMOTEIO, errno.EUCLEAN)
_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_LITTLE = 16 << 20  # bytes free that count as none, for an error that does not say so itself


def machine_line(error: BaseException) -> str | None:
    """The line for an error that the machine's state has caused; None for any other."""
    if isinstance(error, TutelageError):
        return None
    for one, is_cause in _causes(error):
        if (line := _line(one)) is not None:
            return line
        # A file that was missed, and what was done instead had a defect: that must not hide behind the file.
        if is_cause and isinstance(one, OSError) and (where := _path(one)):
            return f"{where}: {_reason(one)}; see what lies there, and that it can be read and written"
    return None


def _line(error: BaseException) -> str | None:
    number = error.errno if isinstance(error, OSError) else None
    where = _path(error)
    if where in NAMES.values():
        return f"{where}: cannot be written ({_reason(error)}); send it somewhere else"
    said = f"{where}: {_reason(error)}" if where else _reason(error)
    if number in _FULL or _FULL_WORDS.search(str(error)):
        return f"{_full(where)}; free some space there, or set {_variables()} to folders on another disk"
    if _PERHAPS_FULL_WORDS.search(str(error)) and _fullest()[1] < _LITTLE:
        return f"{_full(where)}; free some space there, or set {_variables()} to folders on another disk"
    if number in _RIGHTS:
        return f"{said}; give this user the right, or set {_variables()} to folders that can be written"
    if number in _BROKEN:
        return f"{said}; see that the disk or the network folder works"
    if number in _MANY_FILES:
        return f"{said}; raise the limit: ulimit -n 65536"
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return f"{said or 'no memory left'}; give it more memory, or lower batch, image size and writers"
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        return "no folder for temporary files can be written; set TMPDIR to one that can"
    return None


def _causes(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """The error, and what it was raised from or during; True: only from, so far."""
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
    """Which folder has no room: that of the file, if it is known, else the fullest that is written to."""
    folder = where or str(_fullest()[0])
    return f"{folder}: no space left on the disk"


def _fullest() -> tuple[Path, int]:
    """The folder with the least room among those that a run writes to, and its free bytes."""
    rooms: list[tuple[int, Path]] = []
    for folder in _folders():
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        try:
            rooms.append((shutil.disk_usage(folder).free, folder))
        except OSError:
            continue
    free, folder = min(rooms, default=(0, Path()), key=lambda room: room[0])
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
    """The variables that move what a run writes."""
    store = os.environ.get("TUTELAGE_STORE") or ".tutelage"
    return "TUTELAGE_WORK, XDG_CACHE_HOME or TMPDIR" if "://" in store else "TUTELAGE_STORE or TMPDIR"
