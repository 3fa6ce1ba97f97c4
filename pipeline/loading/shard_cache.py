"""ShardCache: parts of remote shards on this machine's disk, shared by its processes, and never above a bound.

A part is PART_BYTES of a shard, from a multiple of it on. It is fetched once, by whichever process asks first
(a file lock per part makes the others wait for it and not for the network), written aside and renamed, so a killed
process leaves no half part and the next run finds what this one fetched. When the parts exceed the bound, those
unused for longest go.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import DamagedError
from pipeline.whole_files import locked, written_whole

PART_BYTES = 8 << 20
# Eviction goes down to this share of the bound, so that it does not run for every part.
_AFTER_EVICTION = 0.9
# A part's time of use is noted at most this often.
_TOUCH_S = 30.0

Fetch = Callable[[int, int], bytes]


class ShardCache:
    """A folder of parts.

    Args:
        folder: on a local disk; made if need be.
        limit_bytes: what the parts may take; one part at least is kept.
        part_bytes: what is fetched at a time.
    """

    def __init__(self, folder: Path, limit_bytes: int, *, part_bytes: int = PART_BYTES) -> None:
        self.folder = folder
        self.part_bytes = part_bytes
        self._limit = max(limit_bytes, part_bytes)
        self._touched: dict[Path, float] = {}
        self._new_bytes = 0
        self._lock = threading.Lock()

    def parts(self, offset: int, length: int) -> range:
        """The numbers of the parts that hold these bytes of a shard."""
        return range(offset // self.part_bytes, -(-(offset + max(1, length)) // self.part_bytes))

    def read(self, shard: str, size: int, offset: int, length: int, fetch: Fetch) -> bytes:
        """Bytes [offset, offset + length) of a shard; what is not here is fetched.

        Args:
            shard: names it for good: two different shards never have one name.
            size: of the whole shard, in bytes.
            fetch: fetch(start, length) gives bytes of the shard from where it lies.
        Raises:
            DamagedError: the shard is shorter than `size`.
        """
        pieces = []
        for part in self.parts(offset, length):
            start = part * self.part_bytes
            first, last = max(offset, start) - start, min(offset + length, start + self.part_bytes) - start
            pieces.append(self._read_part(shard, size, part, first, last - first, fetch))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def ensure(self, shard: str, size: int, part: int, fetch: Fetch) -> None:
        """Fetches a part unless it is here."""
        path = self._path(shard, part)
        if not path.exists():
            self._fetch_part(path, shard, size, part, fetch)

    def forget(self, shard: str, offset: int, length: int) -> None:
        """Removes the parts that hold these bytes, since they are not what was written."""
        for part in self.parts(offset, length):
            self._path(shard, part).unlink(missing_ok=True)

    def _read_part(self, shard: str, size: int, part: int, offset: int, length: int, fetch: Fetch) -> bytes:
        path = self._path(shard, part)
        while True:
            try:
                with path.open("rb") as file:
                    data = os.pread(file.fileno(), length, offset)
            except FileNotFoundError:  # not fetched yet, or evicted
                self._fetch_part(path, shard, size, part, fetch)
                continue
            self._touch(path)
            return data

    def _fetch_part(self, path: Path, shard: str, size: int, part: int, fetch: Fetch) -> None:
        start = part * self.part_bytes
        wanted = min(self.part_bytes, size - start)
        with locked(self._lock_of(path)):
            if path.exists():
                return
            data = fetch(start, wanted)
            if len(data) != wanted:
                raise DamagedError(f"{shard}: ends early ({start + len(data)} of {size} bytes)")
            with written_whole(path, durable=False) as aside:
                aside.write_bytes(data)
        with self._lock:
            self._new_bytes += len(data)
            # What other processes fetch is seen at the next look; the bound is one look's fetching above the truth.
            due = self._new_bytes >= self._limit * (1 - _AFTER_EVICTION) / 2
            if due:
                self._new_bytes = 0
        if due:
            self._evict()

    def _evict(self) -> None:
        found: list[tuple[float, int, str]] = []
        for folder, _, names in os.walk(self.folder):
            if os.path.basename(folder) == "locks":
                continue
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    stat = os.stat(os.path.join(folder, name))
                    found.append((stat.st_mtime, stat.st_size, os.path.join(folder, name)))
        total = sum(size for _, size, _ in found)
        if total <= self._limit * (1 - (1 - _AFTER_EVICTION) / 2):
            return
        for _, size, path in sorted(found):
            if total <= self._limit * _AFTER_EVICTION:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size

    def _touch(self, path: Path) -> None:
        now = time.monotonic()
        if now - self._touched.get(path, -_TOUCH_S) >= _TOUCH_S:
            if len(self._touched) > 100_000:
                self._touched.clear()
            self._touched[path] = now
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)

    def _lock_of(self, path: Path) -> Path:
        """The lock file of a part."""
        # A fixed number of lock files: two parts that share one wait for each other, which harms nothing.
        return self.folder / "locks" / hashlib.blake2b(str(path).encode(), digest_size=1).hexdigest()

    def _path(self, shard: str, part: int) -> Path:
        return self.folder / shard / f"{self.part_bytes}-{part:06d}"
