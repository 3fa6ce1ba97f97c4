"""The storage protocol: reads and writes of whole objects, two conditional writes, and an atomic publish.

Paths are relative, with "/" as separator. Operations in which processes compete (committing an artifact, moving the
champion) are built on `create`, `replace` and `publish`; the others are plain reads and writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in storage.

    Attributes:
        size: in bytes.
        etag: a token that changes with the bytes.
        modified: Unix time of its last change, to the second.
    """

    path: str
    size: int
    etag: str
    modified: float = field(default=0.0, compare=False)


class Storage(Protocol):
    """Named objects of bytes, in a folder or a bucket."""

    @property
    def url(self) -> str:
        """The URL for `pipeline.storage.open_storage`, e.g. "/data/store" or "s3://bucket/prefix"."""

    def check_writable(self) -> None:
        """Writes and removes a small object.

        Raises:
            InputError: the storage cannot be reached or written.
        """

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes [start, start + length) of an object; to its end if `length` is None.

        Raises:
            FileNotFoundError: there is no such object.
        """

    def write(self, path: str, data: bytes) -> None:
        """Writes an object atomically; replaces an existing one."""

    def create(self, path: str, data: bytes) -> bool:
        """Writes an object unless it exists; True if this call created it."""

    def replace(self, path: str, data: bytes, etag: str) -> bool:
        """Replaces an object if its etag is still `etag`; True if this call replaced it (compare-and-swap)."""

    def stat(self, path: str) -> ObjectInfo | None:
        """The object at `path`, or None."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects below the folder `prefix`, sorted by path."""

    def delete(self, path: str) -> None:
        """Removes an object; does nothing if there is none."""

    def upload(self, source: Path, path: str) -> None:
        """Uploads a local file of any size, atomically."""

    def download(self, path: str, target: Path) -> None:
        """Downloads an object to a local file, atomically; creates parent folders.

        Raises:
            FileNotFoundError: there is no such object.
        """

    def local_path(self, path: str) -> Path | None:
        """The path of the object on this machine's disk; None if it is not on this machine."""

    def publish(self, folder: Path, path: str, manifest: dict[str, object]) -> bool:
        """Publishes the files of a local folder under `path` in one atomic step, manifest.json last.

        Consumes `folder`. Of several calls for the same path exactly one returns True; the files of the
        others are deleted. On S3, where a folder cannot be moved atomically, the files go into a subfolder
        for this call, which the manifest names as "root".

        Args:
            folder: local folder with the files; on the same file system for local storage.
            path: the artifact's path, e.g. "artifacts/shard-dataset/0a1b".
            manifest: JSON content of manifest.json; "root" is set by this call.
        """

    def unpublish(self, path: str) -> None:
        """Removes a published folder, its manifest first; does nothing if there is none."""

    def sweep(self) -> Sequence[str]:
        """Removes incomplete work of processes that have ended; returns its paths. Published files are not touched."""
