"""Artifacts: immutable folders under a key, committed atomically.

An artifact is stored at artifacts/STAGE/KEY. Its manifest.json, written last, lists every file with its size and
SHA-256; a folder without a manifest is not an artifact. The key is a hash of everything the content depends on, so the
artifact of a committed key is reused and does not change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.atomic_files import atomic_write
from pipeline.errors import DamagedError, InputError, UnknownNameError, WorkError
from pipeline.storage import Storage, open_storage
from pipeline.storage.checked_files import is_as_committed
from pipeline.storage.sha256 import file_sha256, ranges_sha256

MANIFEST = "manifest.json"
_FORMAT = 1
ASIDE = ".aside"  # folder of incomplete downloads
_FIX = "delete this artifact with `tutelage artifacts rm` and run its stage again"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of an artifact: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """A committed folder.

    Attributes:
        stage: name of the stage that built it.
        key: hash of the stage, its version, its config and its inputs' keys.
        files: relative name -> size and digest.
        summary: numbers and words that the stage reported.
        manifest: the whole manifest.
        cache: local folder for files fetched from a remote store.
        cached: `run_stage` found the artifact in the store instead of running the stage.
    """

    stage: str
    key: str
    storage: Storage = field(repr=False, compare=False)
    cache: Path = field(repr=False, compare=False)
    manifest: dict[str, Any] = field(repr=False, compare=False)
    cached: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """STAGE/KEY, the name of this artifact in its store."""
        return f"{self.stage}/{self.key}"

    @property
    def url(self) -> str:
        """The artifact's URL: the store's URL and the path in it."""
        return f"{self.storage.url}/{self._base}"

    @property
    def files(self) -> dict[str, FileEntry]:
        return {name: FileEntry(entry["size"], entry["sha256"]) for name, entry in self.manifest["files"].items()}

    @property
    def summary(self) -> dict[str, Any]:
        return dict(self.manifest["summary"])

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.manifest["config"])

    @property
    def seconds(self) -> float:
        """Duration of the stage in seconds."""
        return float(self.manifest["seconds"])

    def object_path(self, name: str) -> str:
        """The path of a file in the storage, for range reads.

        Raises:
            UnknownNameError: the artifact has no such file.
        """
        if name not in self.manifest["files"]:
            raise UnknownNameError(f"file in artifact {self.name}", name, self.manifest["files"])
        return f"{self._base}/{self.manifest['root']}{name}"

    def path(self, name: str, *, hashed: bool = True) -> Path:
        """The local path of a file, verified against the manifest; from S3 it is fetched once and cached.

        A file is verified once in each process. A large file is not hashed again while its size and times are those
        recorded when it was last hashed; weights and the index are hashed in every process.

        Args:
            hashed: False: do not hash a file of a local store, because the reader verifies what it reads, as readers of
                shards do.
        Raises:
            DamagedError: the file is missing, or differs from what was committed.
        """
        stored = self.object_path(name)
        local = self.storage.local_path(stored)
        if local is not None:
            if not local.exists():
                raise DamagedError(f"{local}: missing; {_FIX}")
            if hashed and not self._is_as_committed(local, name):
                raise DamagedError(f"{local}: its bytes are not those that were committed; {_FIX}")
            return local
        # `stored` contains the manifest's root, so an artifact with the same key in a bucket of the same name on
        # another server does not use this copy.
        cached_copy = self.cache / stored
        if cached_copy.is_file() and self._is_as_committed(cached_copy, name):
            return cached_copy
        try:
            with atomic_write(cached_copy, aside=self.cache / ASIDE, durable=False) as temporary:
                self.storage.download(stored, temporary)
                if file_sha256(temporary) != self.files[name].sha256:
                    raise DamagedError(f"{self.url}/{name}: fetched bytes do not match the manifest; {_FIX}")
        except FileNotFoundError:
            raise DamagedError(f"{self.url}/{name}: missing; {_FIX}") from None
        return cached_copy

    def _is_as_committed(self, path: Path, name: str) -> bool:
        entry = self.files[name]
        in_every_process = name.endswith(".safetensors") or name == "index.arrow"
        stamps = self.cache.parent / "checked"
        try:
            return is_as_committed(path, entry.size, entry.sha256, stamps=stamps, in_every_process=in_every_process)
        except OSError as error:
            raise WorkError(f"{path}: cannot be read ({error.strerror}); check the disk, then run again") from None

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return self.path(name).read_bytes()

    def in_same_store(self, name: str) -> Artifact:
        """Another artifact of the same store, by STAGE/KEY.

        Raises:
            DamagedError: it no longer exists.
        """
        artifact = ArtifactStore(self.storage, self.cache.parent).find(name)
        if artifact is None:
            raise DamagedError(f"{self.name} needs {name}, which is missing from {self.storage.url}; restore it")
        return artifact

    def folder(self, prefix: str = "") -> Path:
        """A local folder with all its files (below `prefix`), fetched if necessary."""
        for name in self.manifest["files"]:
            if name.startswith(prefix):
                self.path(name)
        path = f"{self._base}/{self.manifest['root']}{prefix}".rstrip("/")
        local = self.storage.local_path(path)
        return local if local is not None else self.cache / path

    def verify(self) -> list[str]:
        """Hashes every file again; returns one line for each missing or changed file."""
        wrong = []
        for name, entry in self.files.items():
            stored = self.object_path(name)
            try:
                local = self.storage.local_path(stored)
                sha256 = file_sha256(local) if local is not None else _object_sha256(self.storage, stored, entry.size)
            except FileNotFoundError:
                wrong.append(f"{self.name}/{name}: missing")
                continue
            except OSError as error:
                wrong.append(f"{self.name}/{name}: cannot be read ({error.strerror})")
                continue
            if sha256 != entry.sha256:
                wrong.append(
                    f"{self.name}/{name}: SHA-256 is {sha256[:12]}..., the manifest says {entry.sha256[:12]}..."
                )
        return wrong

    @property
    def _base(self) -> str:
        return f"artifacts/{self.stage}/{self.key}"


class ArtifactStore:
    """The artifacts of one storage, and local folders for new ones.

    Args:
        storage: storage of the committed artifacts.
        local: folder on this machine for fetched files, logs and servers' data.
        work: folder for work in progress; None: "work" in `local`. Inside the storage folder when the
            storage is local, so that committing is a rename.
    """

    def __init__(self, storage: Storage, local: Path, work: Path | None = None) -> None:
        self.storage = storage
        self.local = local
        self.work = work if work is not None else local / "work"

    @classmethod
    def open(cls, url: str | None = None) -> ArtifactStore:
        """The store at a URL (None: TUTELAGE_STORE, else .tutelage/ here).

        Its local folder is the storage itself, or for S3 a folder in the user's cache; work in progress is then
        in a subfolder of TUTELAGE_WORK, if that is set.
        """
        storage = open_storage(url or os.environ.get("TUTELAGE_STORE") or ".tutelage")
        root = storage.local_path("")
        if root is not None:
            return cls(storage, root)
        name = hashlib.sha256(storage.url.encode()).hexdigest()[:12]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        work = os.environ.get("TUTELAGE_WORK")
        return cls(storage, home / "tutelage" / name, Path(work).expanduser().absolute() / name if work else None)

    def get(self, name: str) -> Artifact:
        """The committed artifact STAGE/KEY, which must exist.

        Raises:
            DamagedError: it no longer exists, or its manifest is invalid; see `find`.
        """
        artifact = self.find(name)
        if artifact is None:
            raise DamagedError(f"{name}: was committed and is no longer in {self.storage.url}; restore it")
        return artifact

    def find(self, name: str) -> Artifact | None:
        """The committed artifact STAGE/KEY, or None.

        Raises:
            DamagedError: its manifest is invalid.
            WorkError: its manifest cannot be read.
            InputError: a newer Tutelage wrote it.
        """
        stage, _, key = name.partition("/")
        if not stage or not key:
            return None
        path = f"artifacts/{name}/{MANIFEST}"
        try:
            text = self.storage.read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WorkError(
                f"{self.storage.url}/{path}: cannot be read ({error.strerror}); check its permissions and the disk"
            ) from None
        try:
            manifest = json.loads(text)
            newer = manifest["format"] > _FORMAT
            if not newer:
                _check_manifest(manifest)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            raise DamagedError(f"{self.storage.url}/{path}: not a manifest; {_FIX}") from None
        if newer:
            raise InputError(
                f"{self.storage.url}/{path}: has format {manifest['format']}, not {_FORMAT}; update Tutelage"
            )
        return Artifact(stage, key, self.storage, self.local / "fetched", manifest)

    def resolve(self, reference: str) -> Artifact:
        """The artifact named by STAGE/KEY; a unique prefix of the key is enough.

        Raises:
            InputError: none or several match.
        """
        artifact = self.find(self.full_name(reference))
        if artifact is None:
            raise UnknownNameError("artifact", reference, self.names())
        return artifact

    def full_name(self, reference: str) -> str:
        """STAGE/KEY of the artifact that a reference names, see `resolve`.

        Raises:
            InputError: none or several match.
        """
        stage, _, start = reference.removeprefix(f"{self.storage.url}/artifacts/").strip("/").partition("/")
        # By name only, so that a damaged manifest of another artifact does not matter.
        matches = [name for name in self.names(stage) if start and name.startswith(f"{stage}/{start}")]
        if len(matches) > 1:
            raise InputError(f"{reference}: names {len(matches)} artifacts; give more of the key")
        if not matches:
            raise UnknownNameError("artifact", reference, self.names())
        return matches[0]

    def names(self, stage: str | None = None) -> Iterator[str]:
        """STAGE/KEY of all committed artifacts, of one stage or of every stage, sorted; reads no manifest."""
        prefix = f"artifacts/{stage}" if stage else "artifacts"
        for info in self.storage.list(prefix):
            names = info.path.split("/")
            if len(names) == 4 and names[3] == MANIFEST:
                yield f"{names[1]}/{names[2]}"

    def list(self, stage: str | None = None) -> Iterator[Artifact]:
        """All committed artifacts, of one stage or of every stage, sorted by stage and key."""
        for name in self.names(stage):
            artifact = self.find(name)
            if artifact is not None:
                yield artifact

    def remove(self, name: str) -> int:
        """Removes the artifact STAGE/KEY and its local copy; returns the bytes that its files had in the storage.

        Artifacts that were built from it, or that refer to its shards, are not checked.
        """
        path = f"artifacts/{name}"
        size = sum(info.size for info in self.storage.list(path))
        self.storage.unpublish(path)
        shutil.rmtree(self.local / "fetched" / path, ignore_errors=True)
        return size

    def commit(
        self,
        stage: str,
        key: str,
        folder: Path,
        *,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        summary: Mapping[str, Any],
        seconds: float,
        origin: Mapping[str, Any],
    ) -> Artifact:
        """Publishes `folder` (which is consumed) as the artifact with this key.

        If another process was first, its artifact is returned and `folder` is deleted: artifacts with the
        same key are equivalent.

        Args:
            inputs: name -> STAGE/KEY of the input artifacts.
            origin: stage version, code version and commit.

        Raises:
            ValueError: the folder holds a link or a manifest.json.
        """
        paths = sorted(folder.rglob("*"))
        for path in paths:
            if path.is_symlink() or path == folder / MANIFEST:
                raise ValueError(f"{stage}: {path.relative_to(folder)} cannot be part of an artifact")
        files = {
            path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": file_sha256(path)}
            for path in paths
            if path.is_file()
        }
        manifest: dict[str, object] = {
            "format": _FORMAT,
            "stage": stage,
            "key": key,
            "config": dict(config),
            "inputs": dict(inputs),
            "files": files,
            "summary": dict(summary),
            "seconds": round(seconds, 3),
            "origin": dict(origin),
        }
        self.storage.publish(
            folder, f"artifacts/{stage}/{key}", json.loads(json.dumps(manifest, default=_plain_number))
        )
        artifact = self.find(f"{stage}/{key}")
        if artifact is None:
            raise DamagedError(f"{stage}/{key}: committed, but its manifest cannot be read back")
        return replace(artifact, cached=False)


def _plain_number(value: Any) -> Any:
    """Converts a NumPy or Torch number to Python's, so that a float32 in a summary does not fail a long run."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} in a manifest is not JSON")


def _check_manifest(manifest: Any) -> None:
    """Checks the fields of a manifest.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: a field is missing or invalid.
    """
    for name, kind in (("files", dict), ("summary", dict), ("config", dict), ("inputs", dict), ("root", str)):
        if not isinstance(manifest[name], kind):
            raise TypeError(name)
    float(manifest["seconds"])
    for entry in manifest["files"].values():
        if type(entry["size"]) is not int or not isinstance(entry["sha256"], str):
            raise TypeError("files")


def _object_sha256(storage: Storage, path: str, size: int) -> str:
    sha256 = ranges_sha256(partial(storage.read, path), size)
    info = storage.stat(path)
    if info is None:
        raise FileNotFoundError(path)
    return sha256 if info.size == size else f"(of {info.size} bytes, not {size})"
