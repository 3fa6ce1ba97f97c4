"""Where a table may name files: in its own folder, in that of the images, and in further ones that the config names.

A table comes from anywhere, and what it names is read with the rights of whoever runs: without bounds a row
"/etc/shadow" or "../../other-project/secret.png" would be read, stored and published. Links are followed, and what they
lead to must lie in these folders too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial

from pipeline.errors import InputError, listed
from pipeline.sharding.format import file_addresses as places
from pipeline.sharding.format.file_addresses import FoundFile

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_ADVICE = "name its folder in roots, if it is meant"


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders that rows may name files in.

    Attributes:
        start: what relative paths start from.
        folders: absolute addresses, here or s3://.
    """

    start: str
    folders: tuple[str, ...]

    def address(self, path: str) -> str:
        """The address that a row's path means.

        Raises:
            ValueError: it is none that is read, or lies outside.
        """
        if _SCHEME.match(path) and not places.is_remote(path):
            places.join(self.start, path)  # Says what to do about web addresses.
            raise ValueError(f"{path.partition(':')[0]}: addresses are not read; write a path, or s3://bucket/key")
        url = places.join(self.start, path)
        if not _inside(url, self.folders) and (places.is_remote(url) or not _inside(url, _real(self.folders))):
            raise ValueError(f"lies outside {listed(self.folders, most=3)}; {_ADVICE}")
        return url

    def reading(self, path: str) -> tuple[Callable[[], bytes], str | None]:
        """How a row's file is read, and its stamp.

        Raises:
            ValueError: see `address`.
        """
        url = self.address(path)
        return partial(read_inside, url, self.folders), places.stamp(url)


def roots_of(start: str, *more: str | None) -> Roots:
    """The roots of a table whose relative paths start from a folder.

    Args:
        more: further folders; None is passed over.
    """
    folders = [start, *(places.absolute(folder) for folder in more if folder is not None)]
    return Roots(start, tuple(dict.fromkeys(folders)))


def roots_of_table(table: FoundFile, images: str | None, more: Iterable[str]) -> Roots:
    """The roots of a table.

    Args:
        images: folder that relative paths start from; None: the table's own.
        more: further folders.
    """
    folder = places.parent(table.url)
    return roots_of(places.absolute(images) if images is not None else folder, folder, *more)


def read_inside(url: str, folders: tuple[str, ...]) -> bytes:
    """The bytes of a file, if they lie in one of the folders.

    Raises:
        OSError: they do not, or cannot be read.
    """
    if places.is_remote(url):
        return places.read(url)
    if not leads_inside(url, folders):
        raise OSError(f"is a link that leads out of {listed(folders, most=3)}; {_ADVICE}")
    return places.read(os.path.realpath(url))


def leads_inside(path: str, folders: tuple[str, ...]) -> bool:
    """Whether what a path of this machine leads to, links followed, lies in one of the folders."""
    return _inside(os.path.realpath(path), _real(folders))


def check_rows(paths: Iterable[str], roots: Roots, where: str) -> None:
    """Refuses a table of whose first rows none names a file in the roots.

    Args:
        paths: of some rows.
        where: the table, for the error.
    Raises:
        InputError: with what is wrong with the first.
    """
    first = ""
    for path in paths:
        try:
            roots.address(path)
        except ValueError as error:
            first = first or f"{path}: {error}"
        else:
            return
    if first:
        raise InputError(f"{where}: {first}")


def _inside(url: str, folders: Iterable[str]) -> bool:
    return any(url == folder or url.startswith(folder.rstrip("/") + "/") for folder in folders)


@lru_cache(maxsize=64)
def _real(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(os.path.realpath(folder) for folder in folders if not places.is_remote(folder))
