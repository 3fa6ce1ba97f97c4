"""Names of temporary files that identify their owner process, so that later processes can remove left-over files.

A name is MACHINE-PID-START-RANDOM. MACHINE identifies one boot of one machine and one PID namespace in it (a container
has its own), START the start time of the process. So only the machine on which a process ran can tell whether it has
ended; files of another machine count as left over after a week without a change.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

LEFT_OVER_AFTER_S = 7 * 24 * 3600.0  # a week, longer than any single upload or write

TEMPORARY = "tutelage-"  # prefix of our entries in the system's temporary folder

_NAME = re.compile(r"([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{12}")


def owned_name() -> str:
    """A new name that identifies this process as its owner."""
    return f"{machine_name()}-{os.getpid()}-{_start_time(os.getpid())}-{uuid.uuid4().hex[:12]}"


def is_left_over(name: str, last_changed: float) -> bool:
    """Whether the owner of this name (or of a name that contains one) has ended.

    Args:
        last_changed: Unix time of the last write; decides if the process cannot be looked up.
    """
    owner = _NAME.search(name)
    if owner is not None and owner[1] == machine_name():
        started = _start_time(int(owner[2]))
        if started is not None:
            return started != owner[3]
    return time.time() - last_changed > LEFT_OVER_AFTER_S


def is_owned(name: str) -> bool:
    """Whether a name identifies its owner."""
    return _NAME.search(name) is not None


def sweep_folder(folder: Path) -> list[str]:
    """Removes left-over entries from a folder of temporary files; returns their paths."""
    swept = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with suppress(OSError):
            # Names of earlier versions do not identify an owner; other names are not temporary files.
            known = is_owned(path.name) or re.fullmatch(r"(probe-)?[0-9a-f]{32}", path.name)
            if known and is_left_over(path.name, path.lstat().st_mtime):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                swept.append(str(path))
    return swept


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder in the system's temporary folder; the next run removes what a killed process leaves."""
    return tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{owned_name()}-")


@cache
def machine_name() -> str:
    """12 hex digits that identify one boot of this machine, and the PID namespace of this process."""
    identity = [os.uname().nodename]
    for file in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        try:
            identity.append(Path(file).read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            identity.append("")
    try:
        identity.append(os.readlink("/proc/self/ns/pid"))
        if os.readlink("/proc/self") != str(os.getpid()):
            # /proc is of another namespace (unshare without --mount-proc): our PIDs cannot be looked up there.
            identity.append(uuid.uuid4().hex)
    except OSError:
        identity.append("")
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:12]


def _start_time(pid: int) -> str | None:
    """Start time of a process in the kernel's ticks; "" if it does not exist, None if it is hidden."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        # A zombie has ended, but occupies its PID until its parent reaps it.
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except OSError:
        pass
    # /proc may hide the processes of other users (hidepid). Without /proc, as on macOS, any process with this PID
    # counts as the owner.
    return None if Path("/proc/self/stat").exists() else "0"
