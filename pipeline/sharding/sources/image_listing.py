"""Lists the images below a folder: by their extension or, if that is unknown, by their first bytes.

Other files are counted. Links to files and folders are followed; a link to one of its own parent folders is skipped. A
broken link with the extension of an image is listed, so that it is quarantined with its reason.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.errors import InputError
from pipeline.folders import Identity, entries, identity, kind_of, listing_error
from pipeline.pixels.extensions import IMAGE_SUFFIXES, OTHER_SUFFIXES, RAW_SUFFIXES
from pipeline.pixels.formats import HEAD_BYTES, format_of
from pipeline.sharding.format.valid_text import valid_text
from pipeline.sharding.sources.skipped_files import BROKEN_LINK, HIDDEN, LOOP, SPECIAL, SkipCounter, kind_of_name

# Folders that operating systems create in user folders; not all of them are readable.
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
BROKEN = "is a symbolic link to a file that is not there"


@dataclass(frozen=True, slots=True)
class FolderImages:
    """The images of one folder, with or without its sub-folders.

    Attributes:
        names: paths relative to the listed folder, in order.
        broken: names that are broken links.
        folders: names of the direct sub-folders that were listed.
    """

    names: list[str]
    broken: frozenset[str]
    folders: tuple[str, ...] = ()


def images_in(
    folder: str, skipped: SkipCounter, *, deep: bool = True, prefix: str = "", above: tuple[Identity, ...] = ()
) -> FolderImages:
    """The images of a folder; hidden files are skipped.

    Args:
        skipped: counts the skipped files; their names begin with `prefix`.
        deep: include sub-folders.
        prefix: put before each name, e.g. "cat/".
        above: the parent folders; a link to one of them is skipped.
    Raises:
        InputError: a folder cannot be listed, or a broken link may have been a folder.
    """
    names: list[str] = []
    broken: list[str] = []
    below: list[str] = []
    _add_images(folder, prefix, deep, skipped, (names, broken, below), above, top=True)
    return FolderImages(sorted(names), frozenset(broken), tuple(below))


def is_image(path: str) -> bool:
    """Whether a file is listed as an image.

    True for a file with an unknown extension whose first bytes cannot be read, so that it is reported as unreadable.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES or suffix in OTHER_SUFFIXES or suffix in RAW_SUFFIXES:
        return suffix in IMAGE_SUFFIXES
    try:
        status = os.stat(path)
        return _begins_as_image(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return True


def sub_folders(folder: str) -> list[str]:
    """The names of the direct sub-folders that may contain images, without hidden and system folders.

    Raises:
        InputError: see `images_in`.
    """
    return [
        entry.name
        for entry in entries(folder)
        if not entry.name.startswith(".") and entry.name not in _SYSTEM_FOLDERS and _is_folder(entry)
    ]


def listing_hash(root: str, names: Sequence[str], broken: frozenset[str], into: hashlib._Hash) -> None:
    """Updates a hash with names, sizes and modification times of files below `root`.

    Raises:
        InputError: the file system does not return them.
    """
    for name in names:
        try:
            status = None if name in broken else os.stat(f"{root}/{name}")
        except FileNotFoundError:
            status = None
        except OSError as error:
            raise listing_error(f"{root}/{name}", error) from None
        version = "broken" if status is None else f"{status.st_size}\0{status.st_mtime_ns}"
        into.update(f"{valid_text(name)}\0{version}\n".encode())


def _add_images(
    folder: str,
    prefix: str,
    deep: bool,
    skipped: SkipCounter,
    lists: tuple[list[str], list[str], list[str]],
    above: tuple[Identity, ...],
    *,
    top: bool = False,
) -> None:
    names, broken, below = lists
    above = (*above, identity(folder))
    for entry in entries(folder):
        name = entry.name
        if name.startswith(".") or name.lower() in _SYSTEM_FILES:
            skipped.add(HIDDEN, prefix + name)
            continue
        suffix = os.path.splitext(name)[1].lower()
        kind = kind_of(entry)
        if kind == "folder":
            if name in _SYSTEM_FOLDERS:
                skipped.add(name, prefix + name)
            elif deep and entry.is_symlink() and identity(entry.path) in above:
                skipped.add(LOOP, prefix + name)
            elif deep:
                if top:
                    below.append(name)
                _add_images(entry.path, f"{prefix}{name}/", deep, skipped, lists, above)
        elif kind == "special":
            skipped.add(SPECIAL, prefix + name)
        elif kind == "broken link":
            if suffix in IMAGE_SUFFIXES:
                names.append(prefix + name)
                broken.append(prefix + name)
            else:
                _is_folder(entry)  # raises if the link may have led to a folder
                skipped.add(BROKEN_LINK, prefix + name)
        elif is_image(entry.path):
            names.append(prefix + name)
        else:
            skipped.add(kind_of_name(name), prefix + name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder.

    Raises:
        InputError: it is a broken link that may have led to a folder, whose images would be silently missing.
    """
    kind = kind_of(entry)
    if kind == "broken link" and entry.is_symlink() and not os.path.splitext(entry.name)[1]:
        raise InputError(
            f"{entry.path}: a symbolic link to a missing path; if that is a folder of images, bring it back (mount "
            "it), else remove the link"
        )
    return kind == "folder"


@lru_cache(maxsize=1 << 16)
def _begins_as_image(path: str, size: int, changed: int) -> bool:
    # The size and the time of the change are part of the cache's key.
    with open(path, "rb", buffering=0) as file:
        return format_of(file.read(HEAD_BYTES)) is not None
