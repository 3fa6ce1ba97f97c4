"""Local storage: a folder. Whole writes by rename, conditional writes under a file lock."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError
from pipeline.folders import unlistable
from pipeline.owners import owned_name, sweep_folder
from pipeline.storage.base import ObjectInfo
from pipeline.whole_files import flush_to_disk, locked, written_whole

_ASIDE = ".aside"
_MANIFEST = "manifest.json"


class LocalStorage:
    """Objects are files below `root`; writes go aside first and are moved into place."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))

    @property
    def url(self) -> str:
        return str(self.root)

    def check_writable(self) -> None:
        probe = f"{_ASIDE}/probe-{owned_name()}"
        try:
            # Not only a write: `create` needs hard links, which a few file systems lack.
            self.create(probe, b"probe")
            self.delete(probe)
        except OSError as error:
            raise InputError(
                f"{self.root}: cannot be written ({error.strerror}); set TUTELAGE_STORE to a folder that can"
            ) from None

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            with self._place(path).open("rb") as file:
                file.seek(start)
                return file.read() if length is None else file.read(length)
        except (IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(f"{self.root}/{path}") from error

    def write(self, path: str, data: bytes) -> None:
        with self._written_aside(data) as aside, self._locked():
            os.replace(aside, self._parent_made(path))

    def create(self, path: str, data: bytes) -> bool:
        place = self._parent_made(path)
        with self._written_aside(data) as aside:
            try:
                # A hard link fails if the name is taken: create-if-absent and whole, in one step.
                os.link(aside, place)
            except FileExistsError:
                # On NFS a repeated request can fail because the first one did it, its answer lost.
                return aside.stat().st_nlink == 2
        return True

    def replace(self, path: str, data: bytes, etag: str) -> bool:
        # `write` and `delete` take the lock too: nothing comes between the look and the move.
        with self._written_aside(data) as aside, self._locked():
            current = self.stat(path)
            if current is None or current.etag != etag:
                return False
            os.replace(aside, self._place(path))
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
        return ObjectInfo(path, data.st_size, hashlib.blake2b(token.encode(), digest_size=8).hexdigest(), data.st_mtime)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        top = self._place(prefix) if prefix else self.root
        found: list[str] = []
        for folder, names, files in os.walk(top, onerror=_told_unless_gone):
            if Path(folder) == self.root and _ASIDE in names:
                names.remove(_ASIDE)
            found.extend(str((Path(folder) / name).relative_to(self.root)) for name in files)
        for path in sorted(found):
            info = self.stat(path)
            if info is not None:
                yield info

    def delete(self, path: str) -> None:
        place = self._place(path)
        if place.is_file():
            with self._locked():
                place.unlink(missing_ok=True)

    def upload(self, source: Path, path: str) -> None:
        with self._aside() as aside:
            shutil.copyfile(source, aside)
            flush_to_disk(aside)
            with self._locked():
                os.replace(aside, self._parent_made(path))

    def download(self, path: str, target: Path) -> None:
        source = self._place(path)
        if not source.is_file():
            raise FileNotFoundError(str(source))
        with written_whole(target, durable=False) as aside:
            shutil.copyfile(source, aside)

    def local_path(self, path: str) -> Path | None:
        return self._place(path)

    def publish(self, folder: Path, path: str, manifest: dict[str, object]) -> bool:
        (folder / _MANIFEST).write_text(json.dumps({**manifest, "root": ""}, indent=1, sort_keys=True))
        # What the rename makes visible must be on the disk before it.
        for item in [*folder.rglob("*"), folder]:
            flush_to_disk(item)
        place = self._parent_made(path)
        won = _moved(folder, place)
        if not won and not (place / _MANIFEST).exists():
            # The remains of an artifact that somebody removed in part: no artifact, and in our way.
            with self._locked(), self._aside() as remains:
                if not (place / _MANIFEST).exists():
                    os.rename(place, remains)
                won = _moved(folder, place)
        if won:
            flush_to_disk(place.parent)
        else:
            shutil.rmtree(folder)
        return won

    def sweep(self) -> Sequence[str]:
        return sweep_folder(self.root / _ASIDE)

    def _place(self, path: str) -> Path:
        place = Path(os.path.normpath(self.root / path))
        if not place.is_relative_to(self.root):
            raise InputError(f"{path}: leaves the storage folder {self.root}")
        return place

    def _parent_made(self, path: str) -> Path:
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """A name on the same file system for something in the making; what is left there is removed."""
        folder = self.root / _ASIDE
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / owned_name()
        try:
            yield aside
        finally:
            if aside.is_dir():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.unlink(missing_ok=True)

    @contextmanager
    def _written_aside(self, data: bytes) -> Iterator[Path]:
        with self._aside() as aside:
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield aside

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.root / _ASIDE / "lock"):
            yield


def _told_unless_gone(error: OSError) -> None:
    """A folder that may not be listed is not an empty one; one that another process removed meanwhile is."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise unlistable(str(error.filename), error) from None


def _moved(folder: Path, place: Path) -> bool:
    """Moves a folder to a place where there is nothing; False if there is something."""
    try:
        os.rename(folder, place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True
