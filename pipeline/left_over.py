"""Removes what killed processes left in a store and on this machine, at the start of each run.

Only left-over files are removed: those named after a process that has ended (owners.py), those with a file lock that
nobody holds, or, if neither is known, those unchanged for a week. Committed artifacts are not touched, nor is the
scratch folder of an unfinished artifact, where its next run continues.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from pipeline.artifacts import ASIDE, ArtifactStore
from pipeline.errors import TutelageError
from pipeline.file_lock import open_lock, try_lock
from pipeline.owners import TEMPORARY, is_left_over, is_owned, sweep_folder
from pipeline.shared_file import sweep_shared_files

_log = logging.getLogger("tutelage.store")


def sweep(store: ArtifactStore) -> list[str]:
    """Removes left-over files; returns their paths. What cannot be removed now is left to the next run."""
    swept: list[str] = []
    for sweep_one in (
        lambda: store.storage.sweep(),
        lambda: sweep_folder(store.local / "fetched" / ASIDE),  # incomplete downloads
        lambda: sweep_folder(store.local / "checked"),  # incomplete records of storage/checked_files.py
        lambda: sweep_shared_files(store.local / "decoded"),  # decoded images of trainings that were killed
        lambda: _sweep_work(store),
        lambda: sweep_folder(store.work / "plan"),  # short trainings of `tutelage plan`
        _sweep_temporary,
    ):
        with suppress(OSError, TutelageError):
            swept += sweep_one()
    if swept:
        _log.info("removed what killed processes left: %s", ", ".join(swept[:5]) + (", ..." if swept[5:] else ""))
    return swept


def _sweep_work(store: ArtifactStore) -> list[str]:
    """Removes the outputs of runs that have ended, and the work folders of committed artifacts."""
    swept = []
    for lock in sorted(store.work.glob("*/*/lock")):
        work_folder = lock.parent
        with suppress(OSError, TutelageError), open_lock(lock) as file:
            # Its holder may have removed the folder between listing and opening it.
            if not try_lock(file) or not os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                continue
            # A shared file system may not show the locks of other machines, and a training may take weeks.
            owner = file.read(200).decode(errors="replace")
            if not is_left_over(owner, lock.stat().st_mtime) or not is_left_over(owner, _last_changed(work_folder)):
                continue
            left_over = (
                work_folder
                if store.find(f"{work_folder.parent.name}/{work_folder.name}") is not None
                else work_folder / "output"
            )
            if left_over.exists():
                shutil.rmtree(left_over, ignore_errors=True)
                swept.append(str(left_over))
    return swept


def _last_changed(folder: Path) -> float:
    """Unix time of the last change in a folder."""
    return max(path.lstat().st_mtime for path in [folder, *folder.rglob("*")])


def _sweep_temporary() -> list[str]:
    """Removes temporary entries of this user's processes."""
    swept = []
    for path in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            status = path.lstat()
            if is_owned(path.name) and status.st_uid == os.getuid() and is_left_over(path.name, status.st_mtime):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                swept.append(str(path))
    return swept
