"""SampleReader: the encoded bytes of any sample of a shards artifact, by its id.

A sample is one `pread` from a local shard; from S3 it is read through a bounded local cache or by coalesced range
requests. Several threads may read at the same time: a `pread` waits for the disk without the interpreter's lock, which
a page fault in a memory map would hold, and a truncated shard is an error instead of a SIGBUS.

Bytes are compared with the content hash in the index before they are returned: always if they come over a network, and
as `verify` says if they come from the local disk. Wrong bytes are read again from the original, bypassing caches; if
they are still wrong, the sample is named in an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import DamagedError
from pipeline.loading.decoded_cache import DecodedCache, open_decoded_cache
from pipeline.loading.quarantine import DamagedSampleError
from pipeline.loading.remote_shards import RemoteMode, RemoteShards, Span, open_remote_shards
from pipeline.sharding.format.index import SampleIndex, content_hash
from pipeline.sharding.format.shard_locations import ShardLocations
from pipeline.storage import open_storage

# Shards that stay open; further ones are opened for each read. The usual limit of a process is 1,024 files.
_OPEN_SHARDS = 256
_LOCAL_TRIES, _REMOTE_TRIES = 2, 4

Verify = Literal["always", "first", "never"]


class SampleReader:
    """Reads samples from the tars of a shards artifact.

    Args:
        artifact: an artifact of the stage shard-dataset, with shards or with tars that it indexes in place.
        index: the artifact's index.
        remote: how shards outside this machine's disk are read, see `remote_shards`.
        verify: when bytes from the local disk are compared with their content hash: at every read, at a sample's
            first read by this reader (recorded in one bit a sample), or never. Bytes that cannot be decoded are
            always compared.
    """

    def __init__(
        self, artifact: Artifact, index: SampleIndex, *, remote: RemoteMode = "parts", verify: Verify = "first"
    ) -> None:
        self._artifact = artifact
        self._index = index
        self._remote_mode: RemoteMode = remote
        self._verify: Verify = verify
        # One bit a sample. Two threads may overwrite each other's bit; then a sample is compared again.
        self._verified = np.zeros(-(-len(index) // 8) if verify == "first" else 0, np.uint8)
        self._lock = threading.Lock()
        self._descriptors: dict[int, int] = {}
        self._locations = ShardLocations(artifact, index.shard_names)
        self.decoded_cache: DecodedCache | None = None
        self._decoded_limits = (0, 0, 0)
        self._remote: RemoteShards | None = None
        if any(self._locations.remote):
            self._remote = open_remote_shards(self._locations, remote)

    @classmethod
    def open(cls, artifact: Artifact, *, remote: RemoteMode = "parts", verify: Verify = "first") -> SampleReader:
        """A reader that opens the index itself."""
        return cls(artifact, SampleIndex.open(artifact), remote=remote, verify=verify)

    @property
    def is_remote(self) -> bool:
        """Whether a shard is not on this machine's disk."""
        return self._remote is not None

    def opener(self) -> Callable[[], SampleReader]:
        """A picklable function that opens the same reader in another process of this machine."""
        artifact = self._artifact
        address = (artifact.storage.url, artifact.cache.parent, artifact.name)
        return partial(_open_in_process, address, self._remote_mode, self._verify, self._decoded_limits)

    def keep_decoded(self, megabytes: int, channels: int, smallest_size: int) -> None:
        """Opens the cache of decoded pixels, if those of the training split fit; see `open_decoded_cache`."""
        self._decoded_limits = (megabytes, channels, smallest_size)
        self.decoded_cache = open_decoded_cache(
            self._artifact.cache.parent,
            self._artifact.name,
            self._index,
            megabytes=megabytes,
            channels=channels,
            smallest_size=smallest_size,
        )

    def prefetch(self, ids: NDArray[np.int64]) -> None:
        """Starts to fetch samples that will be read soon; does nothing for shards on this machine."""
        if self._remote is not None:
            spans = (self._span(id) for id in ids.tolist())
            self._remote.prefetch([span for span in spans if self._locations.remote[span.shard]])

    def stop_prefetch(self) -> None:
        """Cancels pending prefetches and waits for the running requests."""
        if self._remote is not None:
            self._remote.stop()

    def read(self, id: int, *, fresh: bool = False) -> bytes:
        """The encoded image of a sample.

        Args:
            fresh: bypass caches, read the original and compare its hash; for a sample that could not be decoded.
        Raises:
            DamagedSampleError: the shard is missing or too short, or the bytes are not those that were written.
        """
        span = self._span(id)
        remote = self._remote if self._locations.remote[span.shard] else None
        tries = _LOCAL_TRIES if remote is None else _REMOTE_TRIES
        for number in range(1, tries + 1):
            bypass_caches = fresh or number > 1
            if remote is not None and bypass_caches:
                remote.forget(span)
            try:
                return self._read_once(id, span, remote, bypass_caches)
            except DamagedSampleError:
                if number == tries:
                    raise
        raise AssertionError("unreachable")

    def damaged_error(self, id: int, reason: str, advice: str = "") -> DamagedSampleError:
        """The error for a damaged sample, with its location."""
        shard = self._index.shard_names[int(self._index.shards[id])]
        return DamagedSampleError(int(id), shard, self._index.key(id), int(self._index.offsets[id]), reason, advice)

    def _read_once(self, id: int, span: Span, remote: RemoteShards | None, fresh: bool) -> bytes:
        try:
            data = self._read_local(span, fresh) if remote is None else remote.read(span)
        except FileNotFoundError:
            raise self.damaged_error(id, *self._locations.missing_message(span.shard)) from None
        except DamagedError as error:
            raise self.damaged_error(id, str(error)) from None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise self.damaged_error(id, f"the disk cannot read it ({error.strerror})") from None
        if len(data) != span.length:
            ends = f"the shard ends early ({len(data)} of {span.length} bytes)"
            raise self.damaged_error(id, ends, self._locations.damage_advice(span.shard))
        if fresh or remote is not None or self._needs_verification(id):
            if content_hash(data) != self._index.content_hash(id):
                raise self.damaged_error(
                    id, "the bytes are not those that were written", self._locations.damage_advice(span.shard)
                )
            # A fresh read bypasses the page cache, so it does not verify what the next plain read returns.
            if self._verify == "first" and not fresh:
                self._verified[id >> 3] |= 1 << (id & 7)
        return data

    def _needs_verification(self, id: int) -> bool:
        if self._verify == "first":
            return not self._verified[id >> 3] >> (id & 7) & 1
        return self._verify == "always"

    def close(self) -> None:
        """Closes the shards and ends the threads; a later read opens them again."""
        self.stop_prefetch()
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def __del__(self) -> None:
        if hasattr(self, "_remote"):
            self.close()

    def _span(self, id: int) -> Span:
        index = self._index
        return Span(int(index.shards[id]), int(index.offsets[id]), int(index.lengths[id]))

    def _read_local(self, span: Span, fresh: bool = False) -> bytes:
        descriptor = self._descriptors.get(span.shard)
        if descriptor is not None and not fresh:
            return os.pread(descriptor, span.length, span.offset)
        if not fresh:
            with self._lock:
                if span.shard not in self._descriptors and len(self._descriptors) < _OPEN_SHARDS:
                    self._descriptors[span.shard] = self._locations.open(span.shard)
                descriptor = self._descriptors.get(span.shard)
            if descriptor is not None:
                return os.pread(descriptor, span.length, span.offset)
        descriptor = self._locations.open(span.shard)
        try:
            if fresh:
                # Drops the page cache as well, in case the bytes are right on the disk but not in memory.
                with contextlib.suppress(OSError, AttributeError):
                    os.posix_fadvise(descriptor, span.offset, span.length, os.POSIX_FADV_DONTNEED)
            return os.pread(descriptor, span.length, span.offset)
        finally:
            os.close(descriptor)


def _open_in_process(
    address: tuple[str, Path, str], remote: RemoteMode, verify: Verify, decoded_limits: tuple[int, int, int]
) -> SampleReader:
    url, local, name = address
    artifact = ArtifactStore(open_storage(url), local).get(name)
    reader = SampleReader.open(artifact, remote=remote, verify=verify)
    reader.keep_decoded(*decoded_limits)
    return reader
