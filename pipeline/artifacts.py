"""Artifacts: immutable folders under a key, whole or not there at all.

An artifact lies in the store at artifacts/STAGE/KEY. Its manifest.json, written last, names every
file with its size and SHA-256; a folder without a manifest is not an artifact. The key is a hash of
everything the content depends on, so a committed key is never made again and never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError, InputError, UnknownNameError, WorkError
from pipeline.storage import Storage, open_storage
from pipeline.storage.checked_files import is_as_committed
from pipeline.storage.sha256 import file_sha256, ranges_sha256
from pipeline.whole_files import written_whole

MANIFEST = "manifest.json"
_FORMAT = 1
ASIDE = ".aside"
_MEND = "delete this artifact and run its stage again"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of an artifact: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """A committed folder.

    Attributes:
        stage: name of the stage that made it.
        key: hash of the stage, its version, its config and its inputs' keys.
        files: relative name -> size and digest.
        summary: headline numbers and words that the stage reported.
        manifest: the whole manifest.
        cached: it was found, not made, by the `run_stage` that returned it.
    """

    stage: str
    key: str
    storage: Storage = field(repr=False, compare=False)
    cache: Path = field(repr=False, compare=False)
    manifest: dict[str, Any] = field(repr=False, compare=False)
    cached: bool = field(default=False, compare=False)

    @property
    def uri(self) -> str:
        """STAGE/KEY: what names this artifact inside its store."""
        return f"{self.stage}/{self.key}"

    @property
    def url(self) -> str:
        """Where it lies, with the store's URL before it."""
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
        """What making it took, in seconds."""
        return float(self.manifest["seconds"])

    def object_path(self, name: str) -> str:
        """The path of one of its files in the storage, for range reads.

        Raises:
            UnknownNameError: it has no such file.
        """
        if name not in self.manifest["files"]:
            raise UnknownNameError(f"file in artifact {self.uri}", name, self.manifest["files"])
        return f"{self._base}/{self.manifest['root']}{name}"

    def path(self, name: str, *, hashed: bool = True) -> Path:
        """One of its files on this machine's disk, compared with the manifest; from S3 it is fetched once and kept.

        A file is compared once a process. A large one is not hashed again while its size and times are those that
        the store remembers; weights and the index are hashed in every process.

        Args:
            hashed: False: whoever reads the file compares what it reads, as readers of shards do, image by image.
        Raises:
            DamagedError: it is missing, or its bytes are not what was committed.
        """
        stored = self.object_path(name)
        local = self.storage.local_path(stored)
        if local is not None:
            if not local.exists():
                raise DamagedError(f"{local}: missing; {_MEND}")
            if hashed and not self._is_whole(local, name):
                raise DamagedError(f"{local}: its bytes are not those that were committed; {_MEND}")
            return local
        # The root is part of the place: a copy from another server's artifact with this key is not ours.
        kept = self.cache / stored
        if kept.is_file() and self._is_whole(kept, name):
            return kept
        try:
            with written_whole(kept, aside=self.cache / ASIDE, durable=False) as aside:
                self.storage.download(stored, aside)
                if file_sha256(aside) != self.files[name].sha256:
                    raise DamagedError(f"{self.url}/{name}: fetched bytes do not match the manifest; {_MEND}")
        except FileNotFoundError:
            raise DamagedError(f"{self.url}/{name}: missing; {_MEND}") from None
        return kept

    def _is_whole(self, path: Path, name: str) -> bool:
        entry = self.files[name]
        in_every_process = name.endswith(".safetensors") or name == "index.arrow"
        notes = self.cache.parent / "checked"
        try:
            return is_as_committed(path, entry.size, entry.sha256, notes=notes, in_every_process=in_every_process)
        except OSError as error:
            raise WorkError(f"{path}: cannot be read ({error.strerror}); see to the disk, then run again") from None

    def read(self, name: str) -> bytes:
        """The bytes of one of its files."""
        return self.path(name).read_bytes()

    def beside(self, uri: str) -> Artifact:
        """Another artifact of the same store, by STAGE/KEY.

        Raises:
            DamagedError: it is not there any more.
        """
        found = ArtifactStore(self.storage, self.cache.parent).find(uri)
        if found is None:
            raise DamagedError(f"{self.uri} needs {uri}, which is gone from {self.storage.url}; bring it back")
        return found

    def folder(self, prefix: str = "") -> Path:
        """A local folder that holds all its files (below `prefix`), fetched if need be."""
        for name in self.manifest["files"]:
            if name.startswith(prefix):
                self.path(name)
        place = f"{self._base}/{self.manifest['root']}{prefix}".rstrip("/")
        local = self.storage.local_path(place)
        return local if local is not None else self.cache / place

    def verify(self) -> list[str]:
        """Reads and re-hashes every file; one line for each that is missing or changed."""
        wrong = []
        for name, entry in self.files.items():
            stored = self.object_path(name)
            try:
                local = self.storage.local_path(stored)
                sha256 = file_sha256(local) if local is not None else _object_sha256(self.storage, stored, entry.size)
            except FileNotFoundError:
                wrong.append(f"{self.uri}/{name}: missing")
                continue
            except OSError as error:
                wrong.append(f"{self.uri}/{name}: cannot be read ({error.strerror})")
                continue
            if sha256 != entry.sha256:
                wrong.append(
                    f"{self.uri}/{name}: SHA-256 is {sha256[:12]}..., the manifest says {entry.sha256[:12]}..."
                )
        return wrong

    @property
    def _base(self) -> str:
        return f"artifacts/{self.stage}/{self.key}"


class ArtifactStore:
    """The artifacts of one storage, and the local folders in which new ones are made.

    Args:
        storage: where committed artifacts lie.
        local: folder on this machine for what is fetched, and for logs and servers' data.
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

        Its local folder is the storage itself, or one in the user's cache for S3; work in progress then lies
        in a folder of its own in TUTELAGE_WORK, if that is set.
        """
        storage = open_storage(url or os.environ.get("TUTELAGE_STORE") or ".tutelage")
        root = storage.local_path("")
        if root is not None:
            return cls(storage, root)
        name = hashlib.sha256(storage.url.encode()).hexdigest()[:12]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        work = os.environ.get("TUTELAGE_WORK")
        return cls(storage, home / "tutelage" / name, Path(work).expanduser().absolute() / name if work else None)

    def get(self, uri: str) -> Artifact:
        """The committed artifact STAGE/KEY, which was there before.

        Raises:
            DamagedError: it is gone; and as `find`.
        """
        found = self.find(uri)
        if found is None:
            raise DamagedError(f"{uri}: was committed and is no longer in {self.storage.url}; bring it back")
        return found

    def find(self, uri: str) -> Artifact | None:
        """The committed artifact STAGE/KEY, or None.

        Raises:
            DamagedError: its manifest is not one.
            WorkError: its manifest cannot be read.
            InputError: a newer Tutelage made it.
        """
        stage, _, key = uri.partition("/")
        if not stage or not key:
            return None
        place = f"artifacts/{uri}/{MANIFEST}"
        try:
            text = self.storage.read(place)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WorkError(
                f"{self.storage.url}/{place}: cannot be read ({error.strerror}); see to its rights and to the disk"
            ) from None
        try:
            manifest = json.loads(text)
            newer = manifest["format"] > _FORMAT
            if not newer:
                _check_manifest(manifest)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            raise DamagedError(f"{self.storage.url}/{place}: not a manifest; {_MEND}") from None
        if newer:
            raise InputError(
                f"{self.storage.url}/{place}: has format {manifest['format']}, not {_FORMAT}; update Tutelage"
            )
        return Artifact(stage, key, self.storage, self.local / "fetched", manifest)

    def resolve(self, reference: str) -> Artifact:
        """The artifact that STAGE/KEY, or an unambiguous beginning of KEY, names.

        Raises:
            InputError: none or several match.
        """
        found = self.find(self.uri(reference))
        if found is None:
            raise UnknownNameError("artifact", reference, self.uris())
        return found

    def uri(self, reference: str) -> str:
        """STAGE/KEY of the artifact that a reference names, as `resolve` takes it.

        Raises:
            InputError: none or several match.
        """
        stage, _, start = reference.removeprefix(f"{self.storage.url}/artifacts/").strip("/").partition("/")
        # By their names: a damaged manifest of another artifact is no obstacle.
        matches = [uri for uri in self.uris(stage) if start and uri.startswith(f"{stage}/{start}")]
        if len(matches) > 1:
            raise InputError(f"{reference}: names {len(matches)} artifacts; give more of the key")
        if not matches:
            raise UnknownNameError("artifact", reference, self.uris())
        return matches[0]

    def uris(self, stage: str | None = None) -> Iterator[str]:
        """STAGE/KEY of all committed artifacts, of one stage or of every stage, sorted; nothing of them is read."""
        prefix = f"artifacts/{stage}" if stage else "artifacts"
        for info in self.storage.list(prefix):
            parts = info.path.split("/")
            if len(parts) == 4 and parts[3] == MANIFEST:
                yield f"{parts[1]}/{parts[2]}"

    def list(self, stage: str | None = None) -> Iterator[Artifact]:
        """All committed artifacts, of one stage or of every stage, sorted by stage and key."""
        for uri in self.uris(stage):
            artifact = self.find(uri)
            if artifact is not None:
                yield artifact

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

        If another process was first, its artifact is returned and `folder` is dropped: the key says
        that both mean the same.

        Args:
            inputs: name -> STAGE/KEY of the artifacts it was made from.
            origin: what made it: stage version, code version, commit.

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
    """A NumPy or Torch number as Python's: hours of work must not fail on a summary's float32."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} in a manifest is not JSON")


def _check_manifest(manifest: Any) -> None:
    """Does nothing if it has what an artifact's manifest has.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it has not.
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
