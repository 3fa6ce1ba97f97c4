"""The storage protocol: named immutable bytes, two conditional writes, one publish.

Paths are relative, with "/" between their parts. Everything that needs two processes to agree
(committing an artifact, moving the champion) rests on `create`, `replace` and `publish`; the rest
is plain reading and writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in storage: its path, its size in bytes, and a token that changes with its bytes.

    Attributes:
        modified: Unix time of its last change, to the second.
    """

    path: str
    size: int
    etag: str
    modified: float = field(default=0.0, compare=False)


class Storage(Protocol):
    """A place that keeps named bytes."""

    @property
    def url(self) -> str:
        """What `pipeline.storage.open_storage` takes to get here, e.g. "/data/store" or "s3://bucket/prefix"."""

    def check_writable(self) -> None:
        """Writes and removes a small object.

        Raises:
            InputError: the storage cannot be reached or written; the line says why and what to do.
        """

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes [start, start + length) of an object; to its end if `length` is None.

        Raises:
            FileNotFoundError: there is no such object.
        """

    def write(self, path: str, data: bytes) -> None:
        """Puts an object, whole or not at all; replaces one that is there."""

    def create(self, path: str, data: bytes) -> bool:
        """Puts an object unless one is there already; True if this call made it."""

    def replace(self, path: str, data: bytes, etag: str) -> bool:
        """Replaces an object whose etag is still `etag`; True if this call did (compare-and-swap)."""

    def stat(self, path: str) -> ObjectInfo | None:
        """The object at `path`, or None."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose path is below the folder `prefix`, sorted by path."""

    def delete(self, path: str) -> None:
        """Removes an object; does nothing if there is none."""

    def upload(self, source: Path, path: str) -> None:
        """Puts a local file, of any size, whole or not at all."""

    def download(self, path: str, target: Path) -> None:
        """Gets an object into a local file, whole or not at all; makes parent folders.

        Raises:
            FileNotFoundError: there is no such object.
        """

    def local_path(self, path: str) -> Path | None:
        """Where the object lies on this machine's disk, or None if it does not."""

    def publish(self, folder: Path, path: str, manifest: dict[str, object]) -> bool:
        """Makes the files of a local folder visible under `path` by one atomic step, manifest.json last.

        Consumes `folder`. Of several calls for one path exactly one returns True; the files of the
        others are dropped. Where files cannot be moved into place at once (S3), they go into a folder
        of their own and the manifest names it as "root".

        Args:
            folder: local folder with the files; on the same file system for local storage.
            path: the artifact's place, e.g. "artifacts/shard-dataset/0a1b".
            manifest: JSON content of manifest.json; "root" is set by this call.
        """

    def sweep(self) -> Sequence[str]:
        """Removes what processes that are gone left half done; what went. Nothing that was published is touched."""
