"""Which files on this machine were compared with what was committed, so that none is hashed again without need.

A file counts as compared while its stamp (size, times of change, inode) is the same: in this process, and, for large
files, in those after it, since the store remembers the stamp. A bit that a disk flips leaves the stamp as it was; so
what decides over results is hashed in every process all the same.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from contextlib import suppress
from pathlib import Path

from pipeline.storage.sha256 import file_sha256
from pipeline.whole_files import written_whole

# Below it a file is hashed in a few hundredths of a second, which is no reason to believe a stamp.
_LARGE = 16 << 20
# A file that changed so lately could change again without another time.
_SETTLED_S = 2.0

_seen: dict[str, tuple[list[int], str]] = {}
_lock = threading.Lock()


def is_as_committed(path: Path, size: int, sha256: str, *, notes: Path, in_every_process: bool) -> bool:
    """Whether a file has the bytes that were committed.

    Args:
        notes: folder of the store for the stamps of large files.
        in_every_process: an earlier process's word is not taken.
    Raises:
        OSError: it cannot be read.
    """
    stamp = _stamp(path)
    if stamp[0] != size:
        return False
    name = str(path)
    with _lock:
        if _seen.get(name) == (stamp, sha256):
            return True
    note = notes / f"{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:32]}.json"
    if in_every_process or size < _LARGE or not _is_noted(note, name, stamp, sha256):
        if file_sha256(path) != sha256 or _stamp(path) != stamp:
            return False
        if size >= _LARGE and not in_every_process:
            _note(note, name, stamp, sha256)
    with _lock:
        _seen[name] = (stamp, sha256)
    return True


def _stamp(path: Path) -> list[int]:
    about = path.stat()
    # The time of the inode's change cannot be set back, as that of the bytes can.
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]


def _is_noted(note: Path, name: str, stamp: list[int], sha256: str) -> bool:
    try:
        return bool(json.loads(note.read_bytes()) == {"file": name, "stamp": stamp, "sha256": sha256})
    except (OSError, ValueError, RecursionError):
        return False


def _note(note: Path, name: str, stamp: list[int], sha256: str) -> None:
    if time.time() - max(stamp[1], stamp[2]) / 1e9 < _SETTLED_S:
        return
    # A store that cannot be written is read all the same, a little slower.
    with suppress(OSError), written_whole(note, durable=False) as aside:
        aside.write_text(json.dumps({"file": name, "stamp": stamp, "sha256": sha256}))
