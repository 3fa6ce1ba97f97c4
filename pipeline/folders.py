"""What lies in folders of this machine, listed whole or refused: a listing that leaves something out looks like a loss.

`os.walk`, `glob` and `Path.rglob` take a folder that may not be read, or whose disk fails, for an empty one. Whoever
compares such a listing with an earlier one takes all of its files for deleted.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from typing import Literal

from pipeline.errors import InputError

EntryKind = Literal["folder", "file", "broken link", "special"]
_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in a folder, in the order of the names.

    Raises:
        InputError: there is no such folder, or it cannot be listed to its end.
    """
    try:
        with os.scandir(folder) as listed:
            return sorted(listed, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise InputError(f"{folder}: is a file, not a folder") from None
    except OSError as error:
        raise unlistable(folder, error) from None


def kind_of(entry: os.DirEntry[str]) -> EntryKind:
    """What an entry is, links followed; special: a pipe, a socket or a device.

    Raises:
        InputError: the file system does not say.
    """
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise unlistable(entry.path, error) from None
        return "broken link"
    # An entry that is neither and no link is special, or was deleted since it was listed.
    return "broken link" if entry.is_symlink() or not os.path.lexists(entry.path) else "special"


Identity = tuple[int, int]


def identity(folder: str) -> Identity:
    """What is the same of two paths to one folder.

    Raises:
        InputError: the file system does not say.
    """
    try:
        facts = os.stat(folder)
    except OSError as error:
        raise unlistable(folder, error) from None
    return facts.st_dev, facts.st_ino


def files_below(folder: str, *, hidden: bool = True, above: tuple[Identity, ...] = ()) -> Iterator[os.DirEntry[str]]:
    """What lies below a folder and is none, broken links too, in the order of the names.

    Links are followed, but for those that lead back to a folder above.

    Args:
        hidden: also those whose name, or a folder's on the way, begins with a dot.
    Raises:
        InputError: a folder cannot be listed.
    """
    above = (*above, identity(folder))
    for entry in entries(folder):
        if not hidden and entry.name.startswith("."):
            continue
        if kind_of(entry) != "folder":
            yield entry
        elif not entry.is_symlink() or identity(entry.path) not in above:
            yield from files_below(entry.path, hidden=hidden, above=above)


def matching(pattern: str) -> list[str]:
    """The paths that an absolute pattern with *, ?, [] and ** means, as `glob.glob` finds them; hidden ones are not
    matched by wild signs, and ** follows links, but for those that lead back to a folder above.

    Raises:
        InputError: a folder on the way cannot be listed.
    """
    found = ["/"]
    parts = pattern.split("/")[1:]
    for place, part in enumerate(parts):
        if part == "**":
            ends = place == len(parts) - 1
            found = [path for start in found if _is_folder(start) for path in _below(start, files=ends)]
        elif any(sign in part for sign in "*?["):
            found = [path for folder in found if _is_folder(folder) for path in _matches(folder, part)]
        else:
            found = [path for path in (os.path.join(folder, part) for folder in found) if _is_there(path)]
    return found


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise unlistable(path, error) from None
        return False
    return True


def unlistable(path: str, error: OSError) -> InputError:
    """The error of a folder, or of something in it, that the file system does not show."""
    advice = (
        "change its permissions, or run as a user who may read it"
        if error.errno in (errno.EACCES, errno.EPERM)
        else "see to the disk or the mount, then run again"
    )
    return InputError(
        f"{path}: cannot be listed ({error.strerror or error}), and what it holds must not be missed; {advice}"
    )


def _is_folder(path: str) -> bool:
    """As `os.path.isdir`, which takes a folder that may not be looked at for none."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise unlistable(path, error) from None
        return False


def _below(folder: str, *, files: bool, above: tuple[Identity, ...] = ()) -> Iterator[str]:
    """A folder and the folders below it, with `files` also what is none."""
    yield folder
    above = (*above, identity(folder))
    for entry in entries(folder):
        if entry.name.startswith("."):
            continue
        if kind_of(entry) != "folder":
            if files:
                yield entry.path
        elif not entry.is_symlink() or identity(entry.path) not in above:
            yield from _below(entry.path, files=files, above=above)


def _matches(folder: str, pattern: str) -> Iterator[str]:
    for entry in entries(folder):
        if fnmatch.fnmatchcase(entry.name, pattern) and entry.name.startswith(".") <= pattern.startswith("."):
            yield entry.path
