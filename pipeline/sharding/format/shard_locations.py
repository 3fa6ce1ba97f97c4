"""Where the shards of an artifact lie, by the names that its index gives them.

shards/train-00000.tar              in the artifact itself
STAGE/KEY/shards/train-00000.tar    in another artifact of the same store, which a delta adds to or a mixture holds
/data/0.tar, s3://bucket/0.tar      wherever a tar lies that is indexed in place; tars.json tells its version

A mixture may have shards of the last two kinds, some of them here and some in S3.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DamagedError
from pipeline.sharding.format import file_addresses as places
from pipeline.sharding.format.tars_file import foreign_tars

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact
    from pipeline.storage import Storage

_OWN = "shards/"


def is_own(name: str) -> bool:
    """Whether a shard with this name lies in the artifact itself."""
    return name.startswith(_OWN)


def owner_of(name: str) -> str | None:
    """STAGE/KEY of the artifact that holds a shard, by the shard's name in another; None if it is its own."""
    return None if is_own(name) else "/".join(name.split("/", 2)[:2])


def elsewhere(owner: str, name: str) -> str:
    """What a shard of the artifact `owner` (STAGE/KEY) is called in an artifact that adds to it."""
    return f"{owner}/{name}" if is_own(name) else name


class ShardPlaces:
    """The places of an artifact's shards, by their numbers.

    Args:
        names: of the shards, as the index has them.

    Attributes:
        remote: [shards] those that do not lie on this machine's disk.
        cache: folder for parts of remote shards.
    """

    def __init__(self, artifact: Artifact, names: Sequence[str]) -> None:
        self._artifact = artifact
        self._names = names
        self._owners = {artifact.uri: artifact}
        self._foreign = {tar.url: tar for tar in foreign_tars(artifact)}
        in_store = artifact.storage.local_path("") is None
        self.remote = tuple(places.is_remote(name) if name in self._foreign else in_store for name in names)
        self.cache = artifact.cache / "parts"

    def open(self, shard: int) -> int:
        """A descriptor of a shard on this machine's disk.

        Raises:
            FileNotFoundError: it is missing.
            DamagedError: a foreign tar is not what was indexed, or the artifact that holds the shard is gone.
        """
        tar = self._foreign.get(self._names[shard])
        if tar is None:
            return os.open(self.path(shard), os.O_RDONLY | os.O_CLOEXEC)
        descriptor = os.open(Path(tar.url), os.O_RDONLY | os.O_CLOEXEC)
        facts = os.fstat(descriptor)
        if (facts.st_size, str(facts.st_mtime_ns)) != (tar.size, tar.version):
            os.close(descriptor)
            raise DamagedError(f"{tar.url}: changed since it was indexed in place; run shard-dataset again")
        return descriptor

    def path(self, shard: int) -> Path:
        """A shard on this machine's disk, fetched and checked if need be; not for tars that are indexed in place.

        Raises:
            DamagedError: it is missing.
        """
        owner, name = self._owner(shard)
        # Each image is compared with its hash in the index when it is read.
        return owner.path(name, hashed=False)

    def object(self, shard: int) -> tuple[Storage, str]:
        """The storage of a remote shard, and its path there."""
        if self._names[shard] in self._foreign:
            return places.object_of(self._names[shard])
        owner, name = self._owner(shard)
        return owner.storage, owner.object_path(name)

    def read(self, shard: int, start: int, length: int) -> bytes:
        """Bytes of a shard, wherever it lies; for a few reads."""
        if self.remote[shard]:
            storage, path = self.object(shard)
            return storage.read(path, start, length)
        descriptor = self.open(shard)
        try:
            return os.pread(descriptor, length, start)
        finally:
            os.close(descriptor)

    def size(self, shard: int) -> int:
        """Bytes of a shard."""
        tar = self._foreign.get(self._names[shard])
        if tar is not None:
            return tar.size
        owner, name = self._owner(shard)
        return int(owner.manifest["files"][name]["size"])

    def identity(self, shard: int) -> str:
        """Names a remote shard and its version: two different ones never have one name."""
        tar = self._foreign.get(self._names[shard])
        return self.object(shard)[1] if tar is None else f"{tar.url} {tar.version}"

    def missing(self, shard: int) -> tuple[str, str]:
        """What is wrong where a shard is gone, and what to do about it."""
        if self._names[shard] in self._foreign:
            return "the tar that was indexed in place is gone", "bring it back, or run shard-dataset again"
        owner, _ = self._owner(shard)
        return f"the shard is missing from {owner.url}", f"re-run {owner.stage}"

    def advice(self, shard: int) -> str:
        """What to do about a shard with wrong bytes."""
        name = self._names[shard]
        if name in self._foreign:
            return "bring the tar back as it was, or run shard-dataset again"
        return f"`tutelage artifacts verify {owner_of(name) or self._artifact.uri}` says what else is damaged"

    def gone(self) -> list[str]:
        """A line for each other artifact that some of the shards lie in and that is not in the store any more."""
        lines = {}
        for number, name in enumerate(self._names):
            uri = None if name in self._foreign else owner_of(name)
            if uri is not None and uri not in lines and uri not in self._owners:
                try:
                    self._owner(number)
                except DamagedError as error:
                    lines[uri] = str(error)
        return list(lines.values())

    def _owner(self, shard: int) -> tuple[Artifact, str]:
        """The artifact that holds a shard, and the shard's name there."""
        name = self._names[shard]
        if is_own(name):
            return self._artifact, name
        stage, key, rest = name.split("/", 2)
        uri = f"{stage}/{key}"
        if uri not in self._owners:
            self._owners[uri] = self._artifact.in_same_store(uri)
        return self._owners[uri], rest
