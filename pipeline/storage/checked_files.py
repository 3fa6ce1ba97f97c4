"""Records which files on this machine were compared with their committed hash, to avoid hashing them again.

A comparison is valid while the file's stamp (size, modification and change times, inode) is the same: in this process,
and for large files also in later ones, because the stamp is recorded in a file. A bit flip on the disk does not change
the stamp, so files that determine results are hashed in every process.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from contextlib import suppress
from pathlib import Path

from pipeline.atomic_files import atomic_write
from pipeline.storage.sha256 import file_sha256

# Smaller files are hashed in a few hundredths of a second, so their stamps are not recorded.
_LARGE_FILE_BYTES = 16 << 20
# A file that changed more recently could change again within the resolution of its times.
_MIN_AGE_S = 2.0

_verified: dict[str, tuple[list[int], str]] = {}
_lock = threading.Lock()


def is_as_committed(path: Path, size: int, sha256: str, *, stamps: Path, in_every_process: bool) -> bool:
    """Whether a file has the committed bytes.

    Args:
        stamps: folder of the recorded stamps of large files.
        in_every_process: ignore stamps that earlier processes recorded.
    Raises:
        OSError: the file cannot be read.
    """
    stamp = _stamp(path)
    if stamp[0] != size:
        return False
    name = str(path)
    with _lock:
        if _verified.get(name) == (stamp, sha256):
            return True
    record = stamps / f"{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:32]}.json"
    if in_every_process or size < _LARGE_FILE_BYTES or not _is_recorded(record, name, stamp, sha256):
        if file_sha256(path) != sha256 or _stamp(path) != stamp:
            return False
        if size >= _LARGE_FILE_BYTES and not in_every_process:
            _record(record, name, stamp, sha256)
    with _lock:
        _verified[name] = (stamp, sha256)
    return True


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    # Unlike the modification time, the inode's change time cannot be set by a program.
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_recorded(record: Path, name: str, stamp: list[int], sha256: str) -> bool:
    try:
        return bool(json.loads(record.read_bytes()) == {"file": name, "stamp": stamp, "sha256": sha256})
    except (OSError, ValueError, RecursionError):
        return False


def _record(record: Path, name: str, stamp: list[int], sha256: str) -> None:
    if time.time() - max(stamp[1], stamp[2]) / 1e9 < _MIN_AGE_S:
        return
    # If the folder is read-only, files are hashed again in the next process.
    with suppress(OSError), atomic_write(record, durable=False) as temporary:
        temporary.write_text(json.dumps({"file": name, "stamp": stamp, "sha256": sha256}))
