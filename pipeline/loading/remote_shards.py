"""Reading samples of shards in an object store: in cached parts, or in coalesced ranges.

    parts     shards are fetched in parts of 8 MiB through the local ShardCache: for orders that read a shard from end
              to end, and for data that fit into the cache, which are fetched once
    ranges    only the samples of the next batches are fetched, neighbours in one request, without a cache: for random
              access to more data than the disk holds

Both prefetch the batches that a loader plans ahead, with many concurrent requests, while decode threads work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pipeline.errors import InputError
from pipeline.loading.shard_cache import Fetch, ShardCache

if TYPE_CHECKING:
    from pipeline.sharding.format.shard_locations import ShardLocations

RemoteMode = Literal["parts", "ranges"]
CACHE_VARIABLE = "TUTELAGE_SHARD_CACHE_GB"

# Concurrent requests. An object store answers one in 20 to 100 ms, at any load.
_CONCURRENT_REQUESTS = 16
# Samples with a smaller gap between them are fetched by one request of at most _MAX_RANGE_BYTES.
_MAX_GAP_BYTES = 64 << 10
_MAX_RANGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Bytes [offset, offset + length) of shard number `shard`."""

    shard: int
    offset: int
    length: int


class RemoteShards(Protocol):
    """Reads spans of the remote shards of an artifact."""

    def prefetch(self, spans: Sequence[Span]) -> None:
        """Starts to fetch spans that will be read soon."""

    def read(self, span: Span) -> bytes:
        """The bytes of a span, fewer if the shard ends early.

        Raises:
            FileNotFoundError: the shard is missing.
        """

    def forget(self, span: Span) -> None:
        """Drops cached bytes of a span because they were wrong; the next read asks the store again."""

    def stop(self) -> None:
        """Cancels pending fetches and ends the threads; a later prefetch starts new ones."""


def open_remote_shards(locations: ShardLocations, mode: RemoteMode) -> RemoteShards:
    """The reader of shards that are not on this machine's disk."""
    if mode == "ranges":
        return RangeReads(locations)
    return CachedParts(locations, ShardCache(locations.cache, cache_limit(locations.cache)))


def cache_limit(folder: Path) -> int:
    """Largest size of the cache in bytes: TUTELAGE_SHARD_CACHE_GB, else a tenth of the disk, 100 GB at most.

    Raises:
        InputError: the variable is not a positive number.
    """
    value = os.environ.get(CACHE_VARIABLE)
    if value is None:
        folder.mkdir(parents=True, exist_ok=True)
        return min(shutil.disk_usage(folder).total // 10, 100 * 10**9)
    try:
        gigabytes = float(value)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < 1e9:
        raise InputError(f"{CACHE_VARIABLE}={value}: must be a number of gigabytes above 0")
    return int(gigabytes * 10**9)


class _RemoteReader:
    """Base of both modes: the locations of the shards, and threads that run from a prefetch to `stop`."""

    def __init__(self, locations: ShardLocations) -> None:
        self._locations = locations
        self._threads: ThreadPoolExecutor | None = None

    def stop(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_CONCURRENT_REQUESTS, thread_name_prefix="fetch")
        return self._threads


class CachedParts(_RemoteReader):
    """Reads shards through the local cache."""

    def __init__(self, locations: ShardLocations, cache: ShardCache) -> None:
        super().__init__(locations)
        self._cache = cache
        self._requested: set[tuple[int, int]] = set()

    def prefetch(self, spans: Sequence[Span]) -> None:
        for shard, part in sorted(
            {(span.shard, part) for span in spans for part in self._cache.parts(span.offset, span.length)}
        ):
            if (shard, part) in self._requested:
                continue
            if len(self._requested) > 100_000:
                self._requested.clear()
            self._requested.add((shard, part))
            # An error is raised again when the part is read.
            self._pool().submit(self._ensure, shard, part)

    def read(self, span: Span) -> bytes:
        return self._cache.read(
            self._name(span.shard), self._size(span.shard), span.offset, span.length, self._fetch(span.shard)
        )

    def forget(self, span: Span) -> None:
        self._cache.forget(self._name(span.shard), span.offset, span.length)

    def stop(self) -> None:
        super().stop()
        self._requested.clear()

    def _ensure(self, shard: int, part: int) -> None:
        self._cache.ensure(self._name(shard), self._size(shard), part, self._fetch(shard))

    def _name(self, shard: int) -> str:
        return self._locations.identity(shard)

    def _size(self, shard: int) -> int:
        return self._locations.size(shard)

    def _fetch(self, shard: int) -> Fetch:
        storage, path = self._locations.object(shard)
        return lambda start, length: storage.read(path, start, length)


class RangeReads(_RemoteReader):
    """Fetches only the requested spans, neighbours together, and holds them in memory until they are read."""

    def __init__(self, locations: ShardLocations) -> None:
        super().__init__(locations)
        self._pending: dict[Span, tuple[Future[bytes], int]] = {}

    def prefetch(self, spans: Sequence[Span]) -> None:
        for group in coalesce(span for span in spans if span not in self._pending):
            start = group[0].offset
            merged = Span(group[0].shard, start, group[-1].offset + group[-1].length - start)
            future = self._pool().submit(self._get, merged)
            for span in group:
                self._pending[span] = future, span.offset - start

    def read(self, span: Span) -> bytes:
        pending = self._pending.pop(span, None)
        if pending is None:
            return self._get(span)
        future, start = pending
        try:
            return future.result()[start : start + span.length]
        except CancelledError:  # by `stop`, called for another iterator of the same reader
            return self._get(span)

    def forget(self, span: Span) -> None:
        self._pending.pop(span, None)

    def stop(self) -> None:
        self._pending.clear()
        super().stop()

    def _get(self, span: Span) -> bytes:
        storage, path = self._locations.object(span.shard)
        return storage.read(path, span.offset, span.length)


def coalesce(spans: Iterable[Span]) -> list[list[Span]]:
    """Groups of spans, each fetched by one request: of one shard, in order, close together."""
    groups: list[list[Span]] = []
    for span in sorted(set(spans)):
        if groups:
            first, last = groups[-1][0], groups[-1][-1]
            close = span.offset - (last.offset + last.length) <= _MAX_GAP_BYTES
            if span.shard == first.shard and close and span.offset + span.length - first.offset <= _MAX_RANGE_BYTES:
                groups[-1].append(span)
                continue
        groups.append([span])
    return groups
