"""Complete listings of local folders: a folder that cannot be listed is an error.

`os.walk`, `glob` and `Path.rglob` treat an unreadable folder, or one on a failing disk, as empty. Compared with an
earlier listing, all of its files would appear to be deleted.
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
_BROKEN_LINK_ERRNOS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name.

    Raises:
        InputError: the folder does not exist, or cannot be listed completely.
    """
    try:
        with os.scandir(folder) as listed:
            return sorted(listed, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise InputError(f"{folder}: is a file, not a folder") from None
    except OSError as error:
        raise listing_error(folder, error) from None


def kind_of(entry: os.DirEntry[str]) -> EntryKind:
    """The kind of an entry, following links; special: a pipe, a socket or a device.

    Raises:
        InputError: the file system returns an error.
    """
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError as error:
        if error.errno not in _BROKEN_LINK_ERRNOS:
            raise listing_error(entry.path, error) from None
        return "broken link"
    # An entry that is neither a folder, a file nor a link is special, or was deleted since the listing.
    return "broken link" if entry.is_symlink() or not os.path.lexists(entry.path) else "special"


Identity = tuple[int, int]


def identity(folder: str) -> Identity:
    """Device and inode, equal for two paths to the same folder.

    Raises:
        InputError: the file system returns an error.
    """
    try:
        status = os.stat(folder)
    except OSError as error:
        raise listing_error(folder, error) from None
    return status.st_dev, status.st_ino


def files_below(folder: str, *, hidden: bool = True, above: tuple[Identity, ...] = ()) -> Iterator[os.DirEntry[str]]:
    """All entries below a folder that are not folders, including broken links, sorted by name.

    Links are followed, except those that lead back to a parent folder.

    Args:
        hidden: include files and folders with a name that begins with a dot.
        above: identities of the parent folders; set by the recursion.
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


def paths_matching(pattern: str) -> list[str]:
    """The paths that match an absolute pattern with *, ?, [] and **, as in `glob.glob`.

    Wildcards do not match hidden names; ** follows links, except those that lead back to a parent folder.

    Raises:
        InputError: a folder cannot be listed.
    """
    paths = ["/"]
    segments = pattern.split("/")[1:]
    for number, segment in enumerate(segments):
        if segment == "**":
            ends = number == len(segments) - 1
            paths = [path for start in paths if _is_folder(start) for path in _below(start, files=ends)]
        elif any(sign in segment for sign in "*?["):
            paths = [path for folder in paths if _is_folder(folder) for path in _matches(folder, segment)]
        else:
            paths = [path for path in (os.path.join(folder, segment) for folder in paths) if _exists(path)]
    return paths


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno not in _BROKEN_LINK_ERRNOS:
            raise listing_error(path, error) from None
        return False
    return True


def listing_error(path: str, error: OSError) -> InputError:
    """The error for a folder, or an entry in it, that the file system does not list."""
    advice = (
        "change its permissions, or run as a user who may read it"
        if error.errno in (errno.EACCES, errno.EPERM)
        else "check the disk or the mount, then run again"
    )
    return InputError(
        f"{path}: cannot be listed ({error.strerror or error}), so some of its files could be missed; {advice}"
    )


def _is_folder(path: str) -> bool:
    """Like `os.path.isdir`, but an inaccessible path is an error."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        if error.errno not in _BROKEN_LINK_ERRNOS:
            raise listing_error(path, error) from None
        return False


def _below(folder: str, *, files: bool, above: tuple[Identity, ...] = ()) -> Iterator[str]:
    """A folder and all folders below it; with `files` also the other entries."""
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
