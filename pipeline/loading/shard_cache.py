"""ShardCache: parts of remote shards on this machine's disk, shared by its processes, with a size limit.

A part is PART_BYTES of a shard, starting at a multiple of PART_BYTES. The first process that needs it fetches it; a
file lock for each part makes the others wait. It is written to a temporary file and renamed, so a killed process leaves
no incomplete part, and later runs reuse the cache. When the parts exceed the limit, the least recently used are
deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.atomic_files import atomic_write
from pipeline.errors import DamagedError
from pipeline.file_lock import file_lock

PART_BYTES = 8 << 20
# Eviction starts at 95% of the limit and goes down to this fraction, so that it does not run for every part. A process
# adds up the sizes of all parts after each 5% of the limit that it has fetched.
_FRACTION_AFTER_EVICTION = 0.9
# Minimum time between two updates of a part's modification time, which records its last use.
_TOUCH_INTERVAL_S = 30.0

Fetch = Callable[[int, int], bytes]


class ShardCache:
    """A folder of parts.

    Args:
        folder: on a local disk; created if missing.
        limit_bytes: maximum total size of the parts; at least one part is cached.
        part_bytes: size of a part.
    """

    def __init__(self, folder: Path, limit_bytes: int, *, part_bytes: int = PART_BYTES) -> None:
        self.folder = folder
        self.part_bytes = part_bytes
        self._limit = max(limit_bytes, part_bytes)
        self._touched: dict[Path, float] = {}
        self._new_bytes = 0
        self._lock = threading.Lock()

    def parts(self, offset: int, length: int) -> range:
        """The numbers of the parts that contain these bytes of a shard."""
        return range(offset // self.part_bytes, -(-(offset + max(1, length)) // self.part_bytes))

    def read(self, shard: str, size: int, offset: int, length: int, fetch: Fetch) -> bytes:
        """Bytes [offset, offset + length) of a shard; missing parts are fetched.

        Args:
            shard: a permanent, unique name of the shard.
            size: size of the whole shard in bytes.
            fetch: fetch(start, length) reads bytes of the shard from the object store.
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
        """Fetches a part unless it is cached."""
        path = self._path(shard, part)
        if not path.exists():
            self._fetch_part(path, shard, size, part, fetch)

    def forget(self, shard: str, offset: int, length: int) -> None:
        """Deletes the parts that contain these bytes, because they are damaged."""
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
        part_length = min(self.part_bytes, size - start)
        with file_lock(self._lock_path(path)):
            if path.exists():
                return
            data = fetch(start, part_length)
            if len(data) != part_length:
                raise DamagedError(f"{shard}: ends early ({start + len(data)} of {size} bytes)")
            with atomic_write(path, durable=False) as temporary:
                temporary.write_bytes(data)
        with self._lock:
            self._new_bytes += len(data)
            # Parts fetched by other processes are counted at the next eviction, so the limit may be exceeded until
            # then.
            due = self._new_bytes >= self._limit * (1 - _FRACTION_AFTER_EVICTION) / 2
            if due:
                self._new_bytes = 0
        if due:
            self._evict()

    def _evict(self) -> None:
        files: list[tuple[float, int, str]] = []
        for folder, _, names in os.walk(self.folder):
            if os.path.basename(folder) == "locks":
                continue
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    stat = os.stat(os.path.join(folder, name))
                    files.append((stat.st_mtime, stat.st_size, os.path.join(folder, name)))
        total = sum(size for _, size, _ in files)
        if total <= self._limit * (1 - (1 - _FRACTION_AFTER_EVICTION) / 2):
            return
        for _, size, path in sorted(files):
            if total <= self._limit * _FRACTION_AFTER_EVICTION:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size

    def _touch(self, path: Path) -> None:
        now = time.monotonic()
        if now - self._touched.get(path, -_TOUCH_INTERVAL_S) >= _TOUCH_INTERVAL_S:
            if len(self._touched) > 100_000:
                self._touched.clear()
            self._touched[path] = now
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)

    def _lock_path(self, path: Path) -> Path:
        """The lock file of a part."""
        # A fixed number of lock files: two parts that share one wait for each other, which is harmless.
        return self.folder / "locks" / hashlib.blake2b(str(path).encode(), digest_size=1).hexdigest()

    def _path(self, shard: str, part: int) -> Path:
        return self.folder / shard / f"{self.part_bytes}-{part:06d}"
