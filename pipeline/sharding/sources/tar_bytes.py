"""The bytes of a tar, by their places: from the disk, or from S3 in large windows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.sharding.sources import places
from pipeline.sharding.sources.places import FoundFile

_REMOTE_WINDOW = 4 << 20


@contextmanager
def opened_tar(tar: FoundFile) -> Iterator[Callable[[int, int], bytes]]:
    """Gives bytes of the tar; from S3 by windows, since a header is small and a request is not."""
    if places.is_remote(tar.url):
        yield _Windows(tar).read
        return
    with open(tar.url, "rb", buffering=0) as file:
        yield lambda start, length: os.pread(file.fileno(), length, start)


class _Windows:
    """A tar in S3, read from front to back in large pieces, of which the last one is held."""

    def __init__(self, tar: FoundFile) -> None:
        self._tar = tar
        self._start = 0
        self._window = b""

    def read(self, start: int, length: int) -> bytes:
        if not self._start <= start <= start + length <= self._start + len(self._window):
            wanted = min(max(length, _REMOTE_WINDOW), self._tar.size - start)
            self._window, self._start = places.read(self._tar.url, start, wanted), start
        return self._window[start - self._start : start - self._start + length]
