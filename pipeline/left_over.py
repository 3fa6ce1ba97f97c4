"""Sweeps what killed processes left in a store and on this machine; each run begins with it.

Only what is provably left over goes: by the name of a process that is gone (owners.py), by a file lock that
nobody holds, or by a week without a change where it cannot be known. What is committed stays, and so does the scratch
of an unfinished artifact: its next run goes on there.
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
from pipeline.owners import TEMPORARY, is_left_over, is_owned, sweep_folder
from pipeline.whole_files import open_lock, try_lock

_log = logging.getLogger("tutelage.store")


def sweep(store: ArtifactStore) -> list[str]:
    """Removes what is left over; what was removed. What cannot be removed now is for the next run."""
    swept: list[str] = []
    for look in (
        lambda: store.storage.sweep(),
        lambda: sweep_folder(store.local / "fetched" / ASIDE),
        lambda: sweep_folder(store.local / "checked"),
        lambda: _sweep_work(store),
        _sweep_temporary,
    ):
        with suppress(OSError, TutelageError):
            swept += look()
    if swept:
        _log.info("removed what killed processes left: %s", ", ".join(swept[:5]) + (", ..." if swept[5:] else ""))
    return swept


def _sweep_work(store: ArtifactStore) -> list[str]:
    """Outputs of runs that are gone, and whole work folders whose artifact is committed."""
    swept = []
    for lock in sorted(store.work.glob("*/*/lock")):
        place = lock.parent
        with suppress(OSError, TutelageError), open_lock(lock) as file:
            # Its holder may have removed the folder between our look and our opening it.
            if not try_lock(file) or not os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                continue
            # A shared file system may not show the locks of other machines, and a training may take weeks.
            owner = file.read(200).decode(errors="replace")
            if not is_left_over(owner, lock.stat().st_mtime) or not is_left_over(owner, _last_changed(place)):
                continue
            gone = place if store.find(f"{place.parent.name}/{place.name}") is not None else place / "output"
            if gone.exists():
                shutil.rmtree(gone, ignore_errors=True)
                swept.append(str(gone))
    return swept


def _last_changed(folder: Path) -> float:
    """Unix time when something in a folder was last written."""
    return max(path.lstat().st_mtime for path in [folder, *folder.rglob("*")])


def _sweep_temporary() -> list[str]:
    """Temporary folders of this user's processes."""
    swept = []
    for path in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            about = path.lstat()
            if is_owned(path.name) and about.st_uid == os.getuid() and is_left_over(path.name, about.st_mtime):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                swept.append(str(path))
    return swept
