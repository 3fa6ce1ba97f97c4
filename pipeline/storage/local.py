"""Local storage: a folder. Whole writes by rename, conditional writes under a file lock."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError
from pipeline.storage.base import ObjectInfo

_ASIDE = ".aside"


class LocalStorage:
    """Objects are files below `root`; writes go aside first and are moved into place."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))

    @property
    def url(self) -> str:
        return str(self.root)

    def check_writable(self) -> None:
        probe = f"{_ASIDE}/probe-{uuid.uuid4().hex}"
        try:
            self.write(probe, b"probe")
            self.delete(probe)
        except OSError as error:
            raise InputError(
                f"{self.root}: cannot be written ({error.strerror}); set TUTELAGE_STORE to a folder that can"
            ) from None

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        with self._place(path).open("rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def write(self, path: str, data: bytes) -> None:
        aside = self._write_aside(data)
        os.replace(aside, self._parent_made(path))

    def create(self, path: str, data: bytes) -> bool:
        aside = self._write_aside(data)
        try:
            # A hard link fails if the name is taken: create-if-absent and whole, in one step.
            os.link(aside, self._parent_made(path))
        except FileExistsError:
            return False
        finally:
            aside.unlink()
        return True

    def replace(self, path: str, data: bytes, etag: str) -> bool:
        with self._locked():
            current = self.stat(path)
            if current is None or current.etag != etag:
                return False
            self.write(path, data)
            return True

    def stat(self, path: str) -> ObjectInfo | None:
        place = self._place(path)
        try:
            data = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not place.is_file():
            return None
        # Inode and time tell two versions apart, since every write makes a new file.
        token = f"{data.st_ino}-{data.st_mtime_ns}-{data.st_size}"
        return ObjectInfo(path, data.st_size, hashlib.blake2b(token.encode(), digest_size=8).hexdigest())

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        top = self._place(prefix) if prefix else self.root
        found: list[str] = []
        for folder, names, files in os.walk(top):
            if Path(folder) == self.root and _ASIDE in names:
                names.remove(_ASIDE)
            found.extend(str((Path(folder) / name).relative_to(self.root)) for name in files)
        for path in sorted(found):
            info = self.stat(path)
            if info is not None:
                yield info

    def delete(self, path: str) -> None:
        self._place(path).unlink(missing_ok=True)

    def upload(self, source: Path, path: str) -> None:
        aside = self._aside_name()
        shutil.copyfile(source, aside)
        os.replace(aside, self._parent_made(path))

    def download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            shutil.copyfile(self._place(path), aside)
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)

    def local_path(self, path: str) -> Path | None:
        return self._place(path)

    def publish(self, folder: Path, path: str, manifest: dict[str, object]) -> bool:
        place = self._parent_made(path)
        text = json.dumps({**manifest, "root": ""}, indent=1, sort_keys=True)
        for file in folder.rglob("*"):
            if file.is_file():
                _sync(file)
        (folder / "manifest.json").write_text(text)
        _sync(folder / "manifest.json")
        try:
            os.rename(folder, place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(folder)
            return False
        _sync(place.parent)
        return True

    def _place(self, path: str) -> Path:
        place = Path(os.path.normpath(self.root / path))
        if not place.is_relative_to(self.root):
            raise InputError(f"{path}: leaves the storage folder {self.root}")
        return place

    def _parent_made(self, path: str) -> Path:
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def _aside_name(self) -> Path:
        folder = self.root / _ASIDE
        folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    def _write_aside(self, data: bytes) -> Path:
        aside = self._aside_name()
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return aside

    @contextmanager
    def _locked(self) -> Iterator[None]:
        (self.root / _ASIDE).mkdir(parents=True, exist_ok=True)
        with (self.root / _ASIDE / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
