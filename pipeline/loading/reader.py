"""SampleReader: the encoded bytes of any sample of a shards artifact, by its id.

From a local shard one `pread`, from S3 one range request. Several threads may read at once: a
`pread` waits for the disk without holding the interpreter's lock, which a page fault in a memory
map would, and a shard that was cut short is an error and not a SIGBUS.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Literal

from pipeline.errors import DamagedError
from pipeline.sharding.index import SampleIndex, content_hash

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact

# Shards held open; those beyond are opened for each read. The usual limit of a process is 1,024 files.
_OPEN_SHARDS = 256


class SampleReader:
    """Reads samples from the tars of a shards artifact.

    Args:
        artifact: of the stage shard-dataset.
        index: its index.
        remote: what to do where the shards do not lie on this machine's disk: "range" requests each
            sample's bytes, "whole" fetches a shard once, checks it and keeps it.
        check: compare what is read with the content hash in the index (SHA-256, 5 us a 3 kB image).
    """

    def __init__(
        self,
        artifact: Artifact,
        index: SampleIndex,
        *,
        remote: Literal["range", "whole"] = "range",
        check: bool = False,
    ) -> None:
        self._artifact = artifact
        self._index = index
        self._remote = remote
        self._check = check
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}

    @classmethod
    def open(
        cls, artifact: Artifact, *, remote: Literal["range", "whole"] = "range", check: bool = False
    ) -> SampleReader:
        """A reader with its own index."""
        return cls(artifact, SampleIndex.open(artifact), remote=remote, check=check)

    def read(self, id: int) -> bytes:
        """The encoded image of a sample.

        Raises:
            DamagedError: the shard is missing or too short, or the bytes are not those that were written.
        """
        index = self._index
        shard, offset, length = int(index.shards[id]), int(index.offsets[id]), int(index.lengths[id])
        try:
            data = self._read_at(shard, offset, length)
        except FileNotFoundError:
            raise DamagedError(
                f"{self.place(id)}: the shard is missing from {self._artifact.url}; re-run shard-dataset"
            ) from None
        if len(data) != length:
            raise DamagedError(
                f"{self.place(id)}: the shard ends early ({len(data)} of {length} bytes); "
                f"`tutelage artifacts verify {self._artifact.uri}` says what else is damaged"
            )
        if self._check and content_hash(data) != index.content_hash(id):
            raise DamagedError(
                f"{self.place(id)}: the bytes are not those that were written; "
                f"`tutelage artifacts verify {self._artifact.uri}` says what else is damaged"
            )
        return data

    def place(self, id: int) -> str:
        """Where a sample lies, as errors name it: shard, key and first byte."""
        shard = self._index.shard_names[int(self._index.shards[id])]
        return f"{shard}, sample {self._index.key(id)} at byte {int(self._index.offsets[id])}"

    def close(self) -> None:
        """Closes the shards; a later read opens them again."""
        with self._lock:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()

    def __del__(self) -> None:
        self.close()

    def _read_at(self, shard: int, offset: int, length: int) -> bytes:
        descriptor = self._open.get(shard)
        if descriptor is not None:
            return os.pread(descriptor, length, offset)
        name = self._index.shard_names[shard]
        stored = self._artifact.object_path(name)
        path = self._artifact.storage.local_path(stored)
        if path is None and self._remote == "range":
            return self._artifact.storage.read(stored, offset, length)
        with self._lock:
            if shard not in self._open and len(self._open) < _OPEN_SHARDS:
                self._open[shard] = os.open(path or self._artifact.path(name), os.O_RDONLY | os.O_CLOEXEC)
            descriptor = self._open.get(shard)
        if descriptor is not None:
            return os.pread(descriptor, length, offset)
        with (path or self._artifact.path(name)).open("rb") as file:
            return os.pread(file.fileno(), length, offset)
