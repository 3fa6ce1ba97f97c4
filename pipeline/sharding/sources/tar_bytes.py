"""Reads byte ranges of a tar, directly or through a read-ahead window; a tar in S3 always has a window."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile

_REMOTE_WINDOW_BYTES = 4 << 20


@contextmanager
def open_tar(tar: FoundFile, *, ahead: int = 0) -> Iterator[Callable[[int, int], bytes]]:
    """Opens a tar; yields read(start, length), which returns a byte range.

    A window replaces many requests for small headers by one.

    Args:
        ahead: size of the window for a local tar in bytes; 0: no window. In sequential reads it saves system calls,
            each of which releases the GIL and waits to get it back while other threads decode images.
    """
    if addresses.is_remote(tar.url):
        yield _ReadAhead(partial(addresses.read, tar.url), tar.size, _REMOTE_WINDOW_BYTES).read
        return
    with open(tar.url, "rb", buffering=0) as file:

        def read(start: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, start)

        yield _ReadAhead(read, tar.size, ahead).read if ahead else read


class _ReadAhead:
    """Reads a tar in windows, of which the last one is in memory.

    Args:
        size: size of the tar in bytes.
        ahead: bytes that are fetched at once, unless more are needed.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, ahead: int) -> None:
        self._fetch = fetch
        self._size = size
        self._ahead = ahead
        self._start = 0
        self._window = b""

    def read(self, start: int, length: int) -> bytes:
        if not self._start <= start <= start + length <= self._start + len(self._window):
            wanted = min(max(length, self._ahead), self._size - start)
            self._window, self._start = self._fetch(start, wanted), start
        return self._window[start - self._start : start - self._start + length]
