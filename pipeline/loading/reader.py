"""SampleReader: the encoded bytes of any sample of a shards artifact, by its id.

From a local shard one `pread`; from S3 through a bounded local cache or by coalesced range requests. Several threads
may read at once: a `pread` waits for the disk without holding the interpreter's lock, which a page fault in a memory
map would, and a shard that was cut short is an error and not a SIGBUS.

What comes over a network is compared with the content hash in the index; wrong bytes are asked for again, and if they
stay wrong the sample is named in an error. It is never passed on.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DamagedError
from pipeline.loading.remote_shards import RemoteMode, RemoteShards, Span, open_remote_shards
from pipeline.sharding.index import SampleIndex, content_hash
from pipeline.sharding.shard_places import ShardPlaces

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact

# Shards held open; those beyond are opened for each read. The usual limit of a process is 1,024 files.
_OPEN_SHARDS = 256
_REMOTE_TRIES = 3


class SampleReader:
    """Reads samples from the tars of a shards artifact.

    Args:
        artifact: of the stage shard-dataset; its shards, or the tars that it indexes in place, are read.
        index: its index.
        remote: how shards are read that do not lie on this machine's disk, see `remote_shards`.
        check: compare what is read from the local disk with the content hash in the index too (SHA-256, 5 us a
            3 kB image).
    """

    def __init__(
        self, artifact: Artifact, index: SampleIndex, *, remote: RemoteMode = "parts", check: bool = False
    ) -> None:
        self._index = index
        self._check = check
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}
        self._places = ShardPlaces(artifact, index.shard_names)
        self._remote: RemoteShards | None = None
        if self._places.remote:
            self._remote = open_remote_shards(self._places, remote)

    @classmethod
    def open(cls, artifact: Artifact, *, remote: RemoteMode = "parts", check: bool = False) -> SampleReader:
        """A reader with its own index."""
        return cls(artifact, SampleIndex.open(artifact), remote=remote, check=check)

    def prefetch(self, ids: NDArray[np.int64]) -> None:
        """Begins to fetch samples that will soon be read; nothing to do where they lie on this machine."""
        if self._remote is not None:
            self._remote.prefetch([self._span(id) for id in ids.tolist()])

    def stop_prefetch(self) -> None:
        """Gives up what was to be fetched ahead and waits for the requests under way."""
        if self._remote is not None:
            self._remote.stop()

    def read(self, id: int) -> bytes:
        """The encoded image of a sample.

        Raises:
            DamagedError: the shard is missing or too short, or the bytes are not those that were written.
        """
        span = self._span(id)
        for last in (False,) * (_REMOTE_TRIES - 1) + (True,):
            try:
                return self._read_once(id, span)
            except DamagedError:
                if last or self._remote is None:
                    raise
                self._remote.forget(span)
        raise AssertionError("unreachable")

    def _read_once(self, id: int, span: Span) -> bytes:
        try:
            data = self._read_local(span) if self._remote is None else self._remote.read(span)
        except FileNotFoundError:
            raise DamagedError(f"{self.place(id)}: {self._places.missing(span.shard)}") from None
        if len(data) != span.length:
            raise DamagedError(
                f"{self.place(id)}: the shard ends early ({len(data)} of {span.length} bytes); "
                f"`tutelage artifacts verify {self._places.holder(span.shard)}` says what else is damaged"
            )
        checked = self._check or self._remote is not None
        if checked and content_hash(data) != self._index.content_hash(id):
            raise DamagedError(
                f"{self.place(id)}: the bytes are not those that were written; "
                f"`tutelage artifacts verify {self._places.holder(span.shard)}` says what else is damaged"
            )
        return data

    def place(self, id: int) -> str:
        """Where a sample lies, as errors name it: shard, key and first byte."""
        shard = self._index.shard_names[int(self._index.shards[id])]
        return f"{shard}, sample {self._index.key(id)} at byte {int(self._index.offsets[id])}"

    def close(self) -> None:
        """Closes the shards and ends the threads; a later read opens them again."""
        self.stop_prefetch()
        with self._lock:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()

    def __del__(self) -> None:
        if hasattr(self, "_remote"):
            self.close()

    def _span(self, id: int) -> Span:
        index = self._index
        return Span(int(index.shards[id]), int(index.offsets[id]), int(index.lengths[id]))

    def _read_local(self, span: Span) -> bytes:
        descriptor = self._open.get(span.shard)
        if descriptor is not None:
            return os.pread(descriptor, span.length, span.offset)
        with self._lock:
            if span.shard not in self._open and len(self._open) < _OPEN_SHARDS:
                self._open[span.shard] = self._places.open(span.shard)
            descriptor = self._open.get(span.shard)
        if descriptor is not None:
            return os.pread(descriptor, span.length, span.offset)
        descriptor = self._places.open(span.shard)
        try:
            return os.pread(descriptor, span.length, span.offset)
        finally:
            os.close(descriptor)
