"""The locations of an artifact's shards, by their names in its index.

shards/train-00000.tar              in the artifact itself
STAGE/KEY/shards/train-00000.tar    in another artifact of the same store: the base of a delta, an input of a mixture
/data/0.tar, s3://bucket/0.tar      outside the store, a tar that is indexed in place; see tars_file.py

A mixture has shards of the last two kinds, of which some may be local and others in S3.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DamagedError
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.tars_file import tars_outside_store

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact
    from pipeline.storage import Storage

_OWN = "shards/"


def is_own(name: str) -> bool:
    """Whether a shard with this name is stored in the artifact itself."""
    return name.startswith(_OWN)


def owner_of(name: str) -> str | None:
    """STAGE/KEY of the artifact that stores a shard, by the shard's name; None for a shard of the artifact itself."""
    return None if is_own(name) else "/".join(name.split("/", 2)[:2])


def qualified_name(owner: str, name: str) -> str:
    """The name of a shard of the artifact `owner` (STAGE/KEY) in an artifact that refers to it."""
    return f"{owner}/{name}" if is_own(name) else name


class ShardLocations:
    """The locations of an artifact's shards, by their numbers.

    Args:
        names: names of the shards in the index.

    Attributes:
        remote: [shards] whether a shard is not on a local disk.
        cache: folder for cached byte ranges of remote shards.
    """

    def __init__(self, artifact: Artifact, names: Sequence[str]) -> None:
        self._artifact = artifact
        self._names = names
        self._owners = {artifact.name: artifact}
        self._outside_store = {tar.url: tar for tar in tars_outside_store(artifact)}
        store_is_remote = artifact.storage.local_path("") is None
        self.remote = tuple(
            addresses.is_remote(name) if name in self._outside_store else store_is_remote for name in names
        )
        self.cache = artifact.cache / "parts"

    def open(self, shard: int) -> int:
        """A file descriptor of a local shard.

        Raises:
            FileNotFoundError: it is missing.
            DamagedError: a tar outside the store changed since it was indexed, or the shard's artifact is missing.
        """
        tar = self._outside_store.get(self._names[shard])
        if tar is None:
            return os.open(self.path(shard), os.O_RDONLY | os.O_CLOEXEC)
        descriptor = os.open(Path(tar.url), os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if (status.st_size, str(status.st_mtime_ns)) != (tar.size, tar.mtime_or_etag):
            os.close(descriptor)
            raise DamagedError(f"{tar.url}: changed since it was indexed in place; run shard-dataset again")
        return descriptor

    def path(self, shard: int) -> Path:
        """The local path of a shard, which is fetched and checked if needed; not for tars that are indexed in place.

        Raises:
            DamagedError: it is missing.
        """
        owner, name = self._owner(shard)
        # Not hashed here: each image is compared with its hash in the index when it is read.
        return owner.path(name, hashed=False)

    def object(self, shard: int) -> tuple[Storage, str]:
        """The storage of a remote shard, and the shard's path in it."""
        if self._names[shard] in self._outside_store:
            return addresses.object_of(self._names[shard])
        owner, name = self._owner(shard)
        return owner.storage, owner.object_path(name)

    def read(self, shard: int, start: int, length: int) -> bytes:
        """A byte range of a local or remote shard; meant for few reads, since nothing stays open."""
        if self.remote[shard]:
            storage, path = self.object(shard)
            return storage.read(path, start, length)
        descriptor = self.open(shard)
        try:
            return os.pread(descriptor, length, start)
        finally:
            os.close(descriptor)

    def size(self, shard: int) -> int:
        """The size of a shard in bytes."""
        tar = self._outside_store.get(self._names[shard])
        if tar is not None:
            return tar.size
        owner, name = self._owner(shard)
        return int(owner.manifest["files"][name]["size"])

    def identity(self, shard: int) -> str:
        """A name for the content of a remote shard: different contents never have the same name."""
        tar = self._outside_store.get(self._names[shard])
        return self.object(shard)[1] if tar is None else f"{tar.url} {tar.mtime_or_etag}"

    def missing_message(self, shard: int) -> tuple[str, str]:
        """(error message for a missing shard, what to do about it)."""
        if self._names[shard] in self._outside_store:
            return "the tar that was indexed in place is gone", "bring it back, or run shard-dataset again"
        owner, _ = self._owner(shard)
        return f"the shard is missing from {owner.url}", f"re-run {owner.stage}"

    def damage_advice(self, shard: int) -> str:
        """What to do about a shard with wrong bytes."""
        name = self._names[shard]
        if name in self._outside_store:
            return "bring the tar back as it was, or run shard-dataset again"
        return f"`tutelage artifacts verify {owner_of(name) or self._artifact.name}` says what else is damaged"

    def missing_owner_errors(self) -> list[str]:
        """One error message for each artifact that should store some of the shards and is not in the store."""
        messages = {}
        for number, name in enumerate(self._names):
            artifact_name = None if name in self._outside_store else owner_of(name)
            if artifact_name is not None and artifact_name not in messages and artifact_name not in self._owners:
                try:
                    self._owner(number)
                except DamagedError as error:
                    messages[artifact_name] = str(error)
        return list(messages.values())

    def _owner(self, shard: int) -> tuple[Artifact, str]:
        """The artifact that stores a shard, and the shard's name in it."""
        name = self._names[shard]
        if is_own(name):
            return self._artifact, name
        stage, key, rest = name.split("/", 2)
        artifact_name = f"{stage}/{key}"
        if artifact_name not in self._owners:
            self._owners[artifact_name] = self._artifact.in_same_store(artifact_name)
        return self._owners[artifact_name], rest
