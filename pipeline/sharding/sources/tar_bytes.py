"""The bytes of a tar, by their places: from the disk, or in large windows, as from S3."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pipeline.sharding.format import file_addresses as places
from pipeline.sharding.format.file_addresses import FoundFile

_REMOTE_WINDOW = 4 << 20


@contextmanager
def opened_tar(tar: FoundFile, *, ahead: int = 0) -> Iterator[Callable[[int, int], bytes]]:
    """Gives bytes of the tar; from S3 by windows, since a header is small and a request is not.

    Args:
        ahead: bytes that are read at once from a disk too, for one who reads all of them in their order: each call of
            the system lets another thread run, which is dear beside threads that decode.
    """
    if places.is_remote(tar.url):
        yield _Windows(partial(places.read, tar.url), tar.size, _REMOTE_WINDOW).read
        return
    with open(tar.url, "rb", buffering=0) as file:

        def read(start: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, start)

        yield _Windows(read, tar.size, ahead).read if ahead else read


class _Windows:
    """A tar that is read from front to back in large pieces, of which the last one is held."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, least: int) -> None:
        self._fetch = fetch
        self._size = size
        self._least = least
        self._start = 0
        self._window = b""

    def read(self, start: int, length: int) -> bytes:
        if not self._start <= start <= start + length <= self._start + len(self._window):
            wanted = min(max(length, self._least), self._size - start)
            self._window, self._start = self._fetch(start, wanted), start
        return self._window[start - self._start : start - self._start + length]
