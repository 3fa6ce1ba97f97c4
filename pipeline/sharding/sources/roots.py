"""The folders in which the rows of a table may name files: the table's own, that of the images, and those in `roots`.

Tables are untrusted, and the files that they name are read with the user's permissions: without a restriction, a row
"/etc/shadow" or "../../other-project/secret.png" would be read, stored and published. Links are followed, and their
targets must be in these folders too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial

from pipeline.errors import InputError, listed
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_ADVICE = "name its folder in roots, if that is intended"


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders in which rows may name files.

    Attributes:
        start: folder to which paths are relative.
        folders: absolute addresses, local or s3://.
    """

    start: str
    folders: tuple[str, ...]

    def address(self, path: str) -> str:
        """The absolute address of a path in a row.

        Raises:
            ValueError: the address is of an unsupported kind, or outside the folders.
        """
        if _SCHEME.match(path) and not addresses.is_remote(path):
            addresses.join(self.start, path)  # Raises with advice for a web address.
            raise ValueError(f"{path.partition(':')[0]}: is no known scheme; write a path, or s3://bucket/key")
        url = addresses.join(self.start, path)
        if not _inside(url, self.folders) and (addresses.is_remote(url) or not _inside(url, _real(self.folders))):
            raise ValueError(f"lies outside {listed(self.folders, limit=3)}; {_ADVICE}")
        return url

    def reader(self, path: str) -> tuple[Callable[[], bytes], str | None]:
        """(function that reads the file at a path in a row, the file's stamp).

        Raises:
            ValueError: see `address`.
        """
        url = self.address(path)
        return partial(read_inside, url, self.folders), addresses.stamp(url)


def roots_of(start: str, *more: str | None) -> Roots:
    """The roots of a table.

    Args:
        start: absolute address of the folder to which paths are relative.
        more: further folders; None is ignored.
    """
    folders = [start, *(addresses.absolute(folder) for folder in more if folder is not None)]
    return Roots(start, tuple(dict.fromkeys(folders)))


def roots_of_table(table: FoundFile, images: str | None, more: Iterable[str]) -> Roots:
    """The roots of a table.

    Args:
        images: folder to which paths are relative; None: the table's own.
        more: further folders.
    """
    folder = addresses.parent(table.url)
    return roots_of(addresses.absolute(images) if images is not None else folder, folder, *more)


def read_inside(url: str, folders: tuple[str, ...]) -> bytes:
    """The bytes of a file in one of the folders.

    Raises:
        OSError: the file is outside the folders, or cannot be read.
    """
    if addresses.is_remote(url):
        return addresses.read(url)
    if not leads_inside(url, folders):
        raise OSError(f"is a link that leads out of {listed(folders, limit=3)}; {_ADVICE}")
    return addresses.read(os.path.realpath(url))


def leads_inside(path: str, folders: tuple[str, ...]) -> bool:
    """Whether the target of a local path, with links resolved, is in one of the folders."""
    return _inside(os.path.realpath(path), _real(folders))


def check_rows(paths: Iterable[str], roots: Roots, where: str) -> None:
    """Rejects a table if all of its first rows name files outside the roots.

    Args:
        paths: paths of the first rows.
        where: name of the table, for the error.
    Raises:
        InputError: no path is allowed; the message states the problem of the first.
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
    return tuple(os.path.realpath(folder) for folder in folders if not addresses.is_remote(folder))
