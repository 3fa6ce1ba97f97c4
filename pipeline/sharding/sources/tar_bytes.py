"""Reads byte ranges of a tar: directly from a disk, or through a large read-ahead window, as for S3."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile

_REMOTE_WINDOW = 4 << 20


@contextmanager
def opened_tar(tar: FoundFile, *, ahead: int = 0) -> Iterator[Callable[[int, int], bytes]]:
    """Yields read(start, length) of the tar; from S3 with a window, since a request per small header is expensive.

    Args:
        ahead: size of a window for a local tar, for sequential reads of the whole tar; 0: no window. It saves system
            calls: each releases the GIL, and waits to get it back while other threads decode images.
    """
    if addresses.is_remote(tar.url):
        yield _Windows(partial(addresses.read, tar.url), tar.size, _REMOTE_WINDOW).read
        return
    with open(tar.url, "rb", buffering=0) as file:

        def read(start: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, start)

        yield _Windows(read, tar.size, ahead).read if ahead else read


class _Windows:
    """Reads a tar from front to back in large windows; the last window is in memory."""

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
