"""Files of a source by their address: a local path, or s3://bucket/key.

S3 credentials and endpoint come from boto3's standard configuration. Web addresses are rejected, because the content
of a page can change: download the images first, with a tool such as img2dataset.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import posixpath
import re
import stat as stat_modes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

from braceexpand import braceexpand

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.folders import files_below, paths_matching
from pipeline.sharding.format.range_file import RangeFile
from pipeline.storage import Storage, open_storage
from pipeline.storage.sha256 import file_sha256

_REMOTE = "s3://"
_WEB = ("http://", "https://", "ftp://")
_WEB_ADVICE = "download the images first, e.g. with img2dataset, and read its tars with kind webdataset"
_BUFFER_BYTES = 1 << 20
_DRIVE = re.compile(r"[A-Za-z]:[\\/](?!/)")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """An existing file.

    Attributes:
        url: absolute path, or s3://bucket/key.
        mtime_or_etag: of a local file the modification time in ns, of an object in S3 the ETag; it changes when the
            bytes change.
    """

    url: str
    size: int
    mtime_or_etag: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def stamp(self, position: int) -> str:
        """The stamp of an image at a row or byte offset (`position`) of this file."""
        return f"{self.size}-{self.mtime_or_etag}-{position}"


def is_remote(address: str) -> bool:
    return address.startswith(_REMOTE)


def absolute(address: str) -> str:
    """The absolute form of an address.

    Raises:
        InputError: it is empty, has no bucket, has credentials in it, or is a web address.
    """
    if address.startswith(_WEB):
        raise InputError(f"{address}: web addresses are not read; {_WEB_ADVICE}")
    if is_remote(address):
        bucket, _, key = address.removeprefix(_REMOTE).partition("/")
        if not bucket:
            raise InputError(f"{address}: names no bucket; write s3://bucket/key")
        if "@" in bucket:
            raise InputError(
                f"{address}: an address must not hold credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return f"{_REMOTE}{bucket}/{key}".rstrip("/")
    if not address.strip():
        raise InputError("an empty address; name a file, a folder or s3://bucket/key")
    return os.path.abspath(os.path.expanduser(address))


def absolute_fields(config: Config, *names: str) -> dict[str, str | tuple[str, ...]]:
    """The absolute form of the addresses in these fields of a config; a field that is None is omitted.

    The artifact of a config must not depend on the working directory.
    """
    values = {name: getattr(config, name) for name in names}
    return {
        name: tuple(map(absolute, value)) if isinstance(value, tuple) else absolute(value)
        for name, value in values.items()
        if value is not None
    }


def parent(url: str) -> str:
    """The folder of a file."""
    return url.rpartition("/")[0] or "/"


def join(folder: str, relative: str) -> str:
    """The address of `relative` in `folder`; an absolute address is returned normalised.

    Raises:
        ValueError: it is a web address, a Windows path, has a NUL byte, or leaves the bucket.
    """
    if relative.startswith(_WEB):
        raise ValueError(f"a web address; {_WEB_ADVICE}")
    if "\0" in relative:
        raise ValueError("a name with a NUL byte")
    if _DRIVE.match(relative):
        raise ValueError("a Windows path with a drive; write paths relative to the folder of images, with /")
    if is_remote(relative):
        folder, relative = "", relative
    if not is_remote(folder) and not is_remote(relative):
        path = os.path.normpath(os.path.join(folder, relative))
        if "\\" in relative and not os.path.lexists(path):
            raise ValueError("no such file; its path has Windows' backslashes: write /")
        return path
    bucket, _, key = (f"{folder}/{relative}" if folder else relative).removeprefix(_REMOTE).partition("/")
    key = posixpath.normpath(key)
    if key.startswith(("../", "/")) or key in ("..", "."):
        raise ValueError(f"{relative} leaves the bucket")
    return f"{_REMOTE}{bucket}/{key}"


def stat(address: str) -> FoundFile:
    """The file at an address.

    Raises:
        InputError: there is no such file, it is not a regular file, or it cannot be read.
    """
    url = absolute(address)
    if is_remote(url):
        storage, key = object_of(url)
        info = storage.stat(key) if key else None
        if info is None:
            raise InputError(f"{url}: no such object")
        return FoundFile(url, info.size, info.etag.strip('"'))
    try:
        data = os.stat(url)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{url}: no such file{_windows_advice(address)}") from None
    except OSError as error:
        raise InputError(f"{url}: cannot be read ({error.strerror})") from None
    if not stat_modes.S_ISREG(data.st_mode):
        raise InputError(f"{url}: not a file")
    return FoundFile(url, data.st_size, str(data.st_mtime_ns))


def stamp(address: str) -> str | None:
    """Size and modification time of a local file; None if it is missing, and for S3, where asking costs as much as
    reading."""
    if is_remote(address):
        return None
    try:
        status = os.stat(address)
    except (OSError, ValueError):
        return None
    return f"{status.st_size}-{status.st_mtime_ns}"


def check_folder(address: str) -> str:
    """The absolute address of a folder.

    Raises:
        InputError: a local folder is missing or is a file. (In S3 a folder is only a prefix of keys: not checked.)
    """
    url = absolute(address)
    if not is_remote(url) and not os.path.isdir(url):
        if os.path.exists(url):
            raise InputError(f"{url}: is a file, not a folder")
        raise InputError(f"{url}: no such folder{_windows_advice(address)}")
    return url


def _windows_advice(address: str) -> str:
    """The advice at the end of an error about a missing local address, if it is a Windows path; "" otherwise."""
    if _DRIVE.search(address):  # It may be absolute already: /folder/C:\...
        return " (a Windows path with a drive: write it as this machine sees it, under WSL as /mnt/c/...)"
    return " (a path with Windows' backslashes: write /)" if "\\" in address else ""


def find(pattern: str, suffixes: Sequence[str]) -> list[FoundFile]:
    """The files that an address names, sorted by address.

    Args:
        pattern: a folder, a file, or a pattern with {000..123}, *, ? or [...].
        suffixes: of a folder, only files with one of these suffixes are found; a file named itself may have any.
    Raises:
        InputError: no file matches, or a file of a brace expansion is missing.
    """
    if "{" in pattern:
        try:
            named = list(braceexpand(pattern))
        except ValueError:
            raise InputError(f"{pattern}: a brace is not closed; write e.g. shard-{{000..123}}.tar") from None
        if is_remote(pattern) and not is_pattern(pattern):
            # One listing instead of one request for each object.
            existing = {file.url: file for file in objects_below(parent(absolute(pattern.partition("{")[0] + "x")))}
            named = [absolute(name) for name in named]
            missing = [name for name in named if name not in existing]
            if missing:
                raise InputError(f"{missing[0]}: no such object ({len(missing)} of the {len(named)} named are missing)")
            return [existing[name] for name in named]
        return [file for name in named for file in (find(name, suffixes) if is_pattern(name) else [stat(name)])]
    url = absolute(pattern)
    files = _find_remote(url, suffixes) if is_remote(url) else _find_local(url, suffixes)
    if not files:
        if is_remote(url) and not is_pattern(url) and has_suffix(url, suffixes):
            raise InputError(f"{url}: no such object")
        wanted = f" that ends with {' or '.join(suffixes)}" if any(suffixes) else ""
        what = "matches nothing" if is_pattern(url) else f"holds no file{wanted}"
        raise InputError(f"{url}: {what}")
    return sorted(files, key=lambda file: file.url)


def read(url: str, start: int = 0, length: int | None = None) -> bytes:
    """The bytes [start, start + length) of a file, all of them if `length` is None.

    Raises:
        OSError: there is no such file, it is a device or a pipe, or it is too short.
    """
    if is_remote(url):
        storage, key = object_of(url)
        data = storage.read(key, start, length)
    else:
        # A manifest may name any path: opening a pipe could block for ever, and /dev/zero has no end.
        if not stat_modes.S_ISREG(os.stat(url).st_mode):
            raise OSError("not a regular file")
        with open(url, "rb") as file:
            file.seek(start)
            data = file.read() if length is None else file.read(length)
    if length is not None and len(data) != length:
        raise OSError(f"the file ends early ({len(data)} of {length} bytes from byte {start})")
    return data


def open_file(url: str) -> BinaryIO:
    """The file, open for reading and seeking.

    Raises:
        InputError: there is no such file.
    """
    file = stat(url)
    if is_remote(file.url):
        return io.BufferedReader(RangeFile(file.size, partial(read, file.url)), _BUFFER_BYTES)
    return open(file.url, "rb")


def file_digest(file: FoundFile) -> str:
    """A digest of a file's bytes; for a file in S3, its size and ETag."""
    if is_remote(file.url):
        return f"{file.size}-{file.mtime_or_etag}"
    return file_sha256(Path(file.url))


def listing_digest(files: Iterable[FoundFile], root: str) -> str:
    """A digest of the names below `root`, sizes and modification times or ETags; the files are not read."""
    hasher = hashlib.sha256()
    for file in files:
        name = file.url.removeprefix(root).lstrip("/")
        hasher.update(f"{name}\0{file.size}\0{file.mtime_or_etag}\n".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()[:20]


def common_folder(files: Sequence[FoundFile]) -> str:
    """The deepest folder that contains all files."""
    folders = [parent(file.url).split("/") for file in files]
    first, last = min(folders), max(folders)
    pairs = enumerate(zip(first, last, strict=False))
    common = next((depth for depth, (left, right) in pairs if left != right), min(len(first), len(last)))
    return "/".join(first[:common]) or "/"


def is_pattern(address: str) -> bool:
    return any(sign in address for sign in "*?[")


def _find_local(url: str, suffixes: Sequence[str]) -> list[FoundFile]:
    if os.path.isdir(url):
        files = [entry.path for entry in files_below(url, hidden=False) if has_suffix(entry.name, suffixes)]
    elif is_pattern(url) and not os.path.exists(url):
        files = [path for path in paths_matching(url) if not os.path.isdir(path)]
    else:
        return [stat(url)]
    return [stat(path) for path in files]


def _find_remote(url: str, suffixes: Sequence[str]) -> list[FoundFile]:
    storage, key = object_of(url)
    if not is_pattern(key):
        info = storage.stat(key) if key else None
        if info is not None:
            return [FoundFile(url, info.size, info.etag.strip('"'))]
        folder, wanted = key, None
    else:
        # The folder part of the text before the first wildcard.
        literal = key[: min(index for sign in "*?[" if (index := key.find(sign)) >= 0)]
        folder, wanted = literal.rpartition("/")[0], key
    bucket = url.removeprefix(_REMOTE).partition("/")[0]
    files = objects_below(f"{_REMOTE}{bucket}/{folder}".rstrip("/"))
    if wanted is None:
        return [file for file in files if has_suffix(file.name, suffixes)]
    return [file for file in files if fnmatch.fnmatchcase(file.url, f"{_REMOTE}{bucket}/{wanted}")]


def objects_below(url: str) -> list[FoundFile]:
    """Every object below a folder in S3."""
    storage, folder = object_of(url)
    bucket = url.removeprefix(_REMOTE).partition("/")[0]
    return [
        FoundFile(f"{_REMOTE}{bucket}/{info.path}", info.size, info.etag.strip('"')) for info in storage.list(folder)
    ]


def has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a file name ends with one of these suffixes, in any case, and is not hidden."""
    return name.lower().endswith(tuple(suffixes)) and not name.startswith(".")


def object_of(url: str) -> tuple[Storage, str]:
    """The bucket of an s3:// address, and the path in it."""
    bucket, _, key = url.removeprefix(_REMOTE).partition("/")
    return _bucket(bucket), key


@lru_cache(maxsize=16)
def _bucket(name: str) -> Storage:
    # One client per bucket and process: creating one takes 50 ms, and it is thread-safe.
    return open_storage(f"{_REMOTE}{name}")
