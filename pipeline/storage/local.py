"""Local storage: a folder. A hard link creates an object; a rename under a file lock replaces one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.atomic_files import atomic_write, flush_to_disk
from pipeline.errors import InputError
from pipeline.file_lock import file_lock
from pipeline.folders import listing_error
from pipeline.owners import owned_name, sweep_folder
from pipeline.storage.base import ObjectInfo

_ASIDE = ".aside"  # folder of a storage for temporary files
_MANIFEST = "manifest.json"


class LocalStorage:
    """Objects are files below `root`; a write goes to a temporary file, which is then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))

    @property
    def url(self) -> str:
        return str(self.root)

    def check_writable(self) -> None:
        probe = f"{_ASIDE}/probe-{owned_name()}"
        try:
            # `create` also tests hard links, which a few file systems lack.
            self.create(probe, b"probe")
            self.delete(probe)
        except OSError as error:
            raise InputError(
                f"{self.root}: cannot be written ({error.strerror}); set TUTELAGE_STORE to a folder that can"
            ) from None

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            with self._full_path(path).open("rb") as file:
                file.seek(start)
                return file.read() if length is None else file.read(length)
        except (IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(f"{self.root}/{path}") from error

    def write(self, path: str, data: bytes) -> None:
        with self._temporary_file(data) as temporary, self._locked():
            os.replace(temporary, self._with_parent(path))

    def create(self, path: str, data: bytes) -> bool:
        full_path = self._with_parent(path)
        with self._temporary_file(data) as temporary:
            try:
                # A hard link fails if the name exists: an atomic create-if-absent.
                os.link(temporary, full_path)
            except FileExistsError:
                # On NFS a repeated request can fail because the first one succeeded and its reply was lost.
                return temporary.stat().st_nlink == 2
        return True

    def replace(self, path: str, data: bytes, etag: str) -> bool:
        # `write` and `delete` take the lock too, so the object cannot change between the check and the rename.
        with self._temporary_file(data) as temporary, self._locked():
            current = self.stat(path)
            if current is None or current.etag != etag:
                return False
            os.replace(temporary, self._full_path(path))
            return True

    def stat(self, path: str) -> ObjectInfo | None:
        full_path = self._full_path(path)
        try:
            data = full_path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not full_path.is_file():
            return None
        # Every write creates a new file, so inode and time identify its version.
        token = f"{data.st_ino}-{data.st_mtime_ns}-{data.st_size}"
        return ObjectInfo(path, data.st_size, hashlib.blake2b(token.encode(), digest_size=8).hexdigest(), data.st_mtime)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        top = self._full_path(prefix) if prefix else self.root
        paths: list[str] = []
        for folder, names, files in os.walk(top, onerror=_raise_unless_removed):
            if Path(folder) == self.root and _ASIDE in names:
                names.remove(_ASIDE)
            paths.extend(str((Path(folder) / name).relative_to(self.root)) for name in files)
        for path in sorted(paths):
            info = self.stat(path)
            if info is not None:
                yield info

    def delete(self, path: str) -> None:
        full_path = self._full_path(path)
        if full_path.is_file():
            with self._locked():
                full_path.unlink(missing_ok=True)

    def upload(self, source: Path, path: str) -> None:
        with self._temporary_path() as temporary:
            shutil.copyfile(source, temporary)
            flush_to_disk(temporary)
            with self._locked():
                os.replace(temporary, self._with_parent(path))

    def download(self, path: str, target: Path) -> None:
        source = self._full_path(path)
        if not source.is_file():
            raise FileNotFoundError(str(source))
        with atomic_write(target, durable=False) as temporary:
            shutil.copyfile(source, temporary)

    def local_path(self, path: str) -> Path | None:
        return self._full_path(path)

    def publish(self, folder: Path, path: str, manifest: dict[str, object]) -> bool:
        # "root": the files lie next to the manifest.
        (folder / _MANIFEST).write_text(json.dumps({**manifest, "root": ""}, indent=1, sort_keys=True))
        # The files must be on the disk before the rename makes them visible.
        for item in [*folder.rglob("*"), folder]:
            flush_to_disk(item)
        full_path = self._with_parent(path)
        won = _rename_unless_exists(folder, full_path)
        if not won and not (full_path / _MANIFEST).exists():
            # The remains of a partly removed artifact: not an artifact, but they block the rename.
            with self._locked(), self._temporary_path() as remains:
                if not (full_path / _MANIFEST).exists():
                    os.rename(full_path, remains)
                won = _rename_unless_exists(folder, full_path)
        if won:
            flush_to_disk(full_path.parent)
        else:
            shutil.rmtree(folder)
        return won

    def unpublish(self, path: str) -> None:
        full_path = self._full_path(path)
        # The lock is held for the rename only: leases wait for it, and deleting the files can take minutes.
        with self._temporary_path() as removed, suppress(FileNotFoundError), self._locked():
            os.rename(full_path, removed)

    def sweep(self) -> Sequence[str]:
        return sweep_folder(self.root / _ASIDE)

    def _full_path(self, path: str) -> Path:
        full_path = Path(os.path.normpath(self.root / path))
        if not full_path.is_relative_to(self.root):
            raise InputError(f"{path}: leaves the storage folder {self.root}")
        return full_path

    def _with_parent(self, path: str) -> Path:
        full_path = self._full_path(path)
        full_path.parent.mkdir(parents=True, exist_ok=True)
        return full_path

    @contextmanager
    def _temporary_path(self) -> Iterator[Path]:
        """A temporary path on the same file system; removed at the end of the block."""
        folder = self.root / _ASIDE
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / owned_name()
        try:
            yield temporary
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _temporary_file(self, data: bytes) -> Iterator[Path]:
        """A temporary file with these bytes, flushed to the disk; removed at the end of the block."""
        with self._temporary_path() as temporary:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with file_lock(self.root / _ASIDE / "lock"):
            yield


def _raise_unless_removed(error: OSError) -> None:
    """Raises if a folder cannot be listed; ignores one that another process has removed meanwhile."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise listing_error(str(error.filename), error) from None


def _rename_unless_exists(folder: Path, full_path: Path) -> bool:
    """Renames a folder to a path; False if the path exists and is not an empty folder."""
    try:
        os.rename(folder, full_path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True
