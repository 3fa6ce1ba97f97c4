"""Where the shards of an artifact lie: inside it, or, for tars that are indexed in place, wherever those are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DamagedError
from pipeline.sharding.index_tars import TARS_FILE, read_tars
from pipeline.sharding.sources import places

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact
    from pipeline.storage import Storage


class ShardPlaces:
    """The places of an artifact's shards, by their numbers.

    Args:
        names: of the shards, as the index has them.

    Attributes:
        remote: they do not lie on this machine's disk.
        cache: folder for parts of remote shards.
    """

    def __init__(self, artifact: Artifact, names: Sequence[str]) -> None:
        self._artifact = artifact
        self._names = names
        self._tars = read_tars(artifact.read(TARS_FILE).decode()) if TARS_FILE in artifact.files else None
        # A source's tars are all here or all in S3: one pattern names them.
        self.remote = (
            artifact.storage.local_path("") is None
            if self._tars is None
            else any(places.is_remote(tar.url) for tar in self._tars)
        )
        self.cache = artifact.cache / "parts"

    def open(self, shard: int) -> int:
        """A descriptor of a shard on this machine's disk.

        Raises:
            FileNotFoundError: it is missing.
            DamagedError: a foreign tar is not what was indexed.
        """
        if self._tars is None:
            return os.open(self._artifact.path(self._names[shard]), os.O_RDONLY | os.O_CLOEXEC)
        tar = self._tars[shard]
        descriptor = os.open(Path(tar.url), os.O_RDONLY | os.O_CLOEXEC)
        facts = os.fstat(descriptor)
        if (facts.st_size, str(facts.st_mtime_ns)) != (tar.size, tar.version):
            os.close(descriptor)
            raise DamagedError(f"{tar.url}: changed since it was indexed in place; run shard-dataset again")
        return descriptor

    def object(self, shard: int) -> tuple[Storage, str]:
        """The storage of a remote shard, and its path there."""
        if self._tars is None:
            return self._artifact.storage, self._artifact.object_path(self._names[shard])
        return places.object_of(self._tars[shard].url)

    def size(self, shard: int) -> int:
        """Bytes of a shard."""
        return self._artifact.files[self._names[shard]].size if self._tars is None else self._tars[shard].size

    def identity(self, shard: int) -> str:
        """Names a remote shard and its version: two different ones never have one name."""
        if self._tars is None:
            return self._artifact.object_path(self._names[shard])
        return f"{self._tars[shard].url} {self._tars[shard].version}"

    def missing(self, shard: int) -> str:
        """What to do about a shard that is gone."""
        if self._tars is None:
            return f"the shard is missing from {self._artifact.url}; re-run shard-dataset"
        return "the tar that was indexed in place is gone; bring it back, or run shard-dataset again"
