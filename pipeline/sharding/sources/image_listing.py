"""The images below a folder, by known extension or else by their first bytes; other files are counted.

Links to files and folders are followed; a link to one of its parent folders is skipped. A broken link with an image's
name is an item, so that it is quarantined with its reason.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.errors import InputError
from pipeline.folders import Identity, entries, identity, kind_of, unlistable
from pipeline.pixels.extensions import IMAGE_SUFFIXES, OTHER_SUFFIXES
from pipeline.pixels.formats import HEAD_BYTES, format_of
from pipeline.sharding.sources.skipped_files import BROKEN_LINK, HIDDEN, LOOP, SPECIAL, SkipCounter, kind_of_name

# Folders that operating systems create in user folders; not all of them are readable.
_OF_THE_SYSTEM = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
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
        skipped: receives each skipped file, by its path with `prefix`.
        deep: include sub-folders; False: those are left to the caller.
        prefix: prefix of the names, e.g. "cat/".
        above: the parent folders, to which links may lead back.
    Raises:
        InputError: a folder cannot be listed, or a broken link may have been a folder.
    """
    names: list[str] = []
    broken: list[str] = []
    below: list[str] = []
    _add_images(folder, prefix, deep, skipped, (names, broken, below), above, top=True)
    return FolderImages(sorted(names), frozenset(broken), tuple(below))


def is_image(path: str) -> bool:
    """Whether a file is listed as an image: by its extension, or if that is unknown, by its first bytes.

    True for an unreadable file with an unknown extension, so that it is reported when it is read.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES or suffix in OTHER_SUFFIXES:
        return suffix in IMAGE_SUFFIXES
    try:
        facts = os.stat(path)
        return _begins_as_image(path, facts.st_size, facts.st_mtime_ns)
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
        if not entry.name.startswith(".") and entry.name not in _OF_THE_SYSTEM and _is_folder(entry)
    ]


def listing_hash(root: str, names: Sequence[str], broken: frozenset[str], into: hashlib._Hash) -> None:
    """Updates a hash with names, sizes and modification times of files below `root`.

    Raises:
        InputError: the file system does not return them.
    """
    for name in names:
        text = os.fsencode(name).decode("utf-8", "replace")
        try:
            facts = None if name in broken else os.stat(f"{root}/{name}")
        except FileNotFoundError:
            facts = None
        except OSError as error:
            raise unlistable(f"{root}/{name}", error) from None
        said = "broken" if facts is None else f"{facts.st_size}\0{facts.st_mtime_ns}"
        into.update(f"{text}\0{said}\n".encode())


def _add_images(
    folder: str,
    prefix: str,
    deep: bool,
    skipped: SkipCounter,
    found: tuple[list[str], list[str], list[str]],
    above: tuple[Identity, ...],
    *,
    top: bool = False,
) -> None:
    names, broken, below = found
    above = (*above, identity(folder))
    for entry in entries(folder):
        name = entry.name
        if name.startswith(".") or name.lower() in _SYSTEM_FILES:
            skipped.add(HIDDEN, prefix + name)
            continue
        suffix = os.path.splitext(name)[1].lower()
        kind = kind_of(entry)
        if kind == "folder":
            if name in _OF_THE_SYSTEM:
                skipped.add(name, prefix + name)
            elif deep and entry.is_symlink() and identity(entry.path) in above:
                skipped.add(LOOP, prefix + name)
            elif deep:
                if top:
                    below.append(name)
                _add_images(entry.path, f"{prefix}{name}/", deep, skipped, found, above)
        elif kind == "special":
            skipped.add(SPECIAL, prefix + name)
        elif kind == "broken link":
            if suffix in IMAGE_SUFFIXES:
                names.append(prefix + name)
                broken.append(prefix + name)
            else:
                _is_folder(entry)
                skipped.add(BROKEN_LINK, prefix + name)
        elif is_image(entry.path):
            names.append(prefix + name)
        else:
            skipped.add(kind_of_name(name), prefix + name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a broken link without extension may have been one.

    Raises:
        InputError: it may have been a folder, whose images would be silently missing.
    """
    kind = kind_of(entry)
    if kind == "broken link" and entry.is_symlink() and not os.path.splitext(entry.name)[1]:
        raise InputError(
            f"{entry.path}: a symbolic link to what is not there; if that is a folder of images, bring it back (mount "
            "it), else remove the link"
        )
    return kind == "folder"


@lru_cache(maxsize=1 << 16)
def _begins_as_image(path: str, size: int, changed: int) -> bool:
    with open(path, "rb", buffering=0) as file:
        return format_of(file.read(HEAD_BYTES)) is not None
