"""Names for what lies aside: each says which process it belongs to, so that the next one knows what is left over.

A name is MACHINE-PID-START-RANDOM. MACHINE stands for one boot of one machine and one PID namespace in it (a
container has its own), START for the moment that the process began. So whether the owner is gone can be said for sure
on the machine that it ran on, and nowhere else: what another machine left is taken for dead after a week only.
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

FORGOTTEN_S = 7 * 24 * 3600.0  # a week: nobody uploads one object or writes one file for so long

TEMPORARY = "tutelage-"  # what our entries in the system's temporary folder begin with

_NAME = re.compile(r"([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{12}")


def owned_name() -> str:
    """A new name that says that it is this process's."""
    return f"{_machine()}-{os.getpid()}-{_begun(os.getpid())}-{uuid.uuid4().hex[:12]}"


def is_left_over(name: str, last_changed: float) -> bool:
    """Whether what has this name (or a name with it inside) belongs to a process that is gone.

    Args:
        last_changed: Unix time when it was last written to; it decides where the process cannot be looked up.
    """
    owner = _NAME.search(name)
    if owner is not None and owner[1] == _machine():
        begun = _begun(int(owner[2]))
        if begun is not None:
            return begun != owner[3]
    return time.time() - last_changed > FORGOTTEN_S


def is_owned(name: str) -> bool:
    """Whether a name says whose it is."""
    return _NAME.search(name) is not None


def sweep_folder(folder: Path) -> list[str]:
    """Removes what gone processes left in a folder for things in the making; the paths of what went."""
    swept = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with suppress(OSError):
            # Names of before say nothing, and neither does what we write under plain names.
            known = is_owned(path.name) or re.fullmatch(r"(probe-)?[0-9a-f]{32}", path.name)
            if known and is_left_over(path.name, path.lstat().st_mtime):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                swept.append(str(path))
    return swept


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder in the system's temporary folder; what a killed process leaves of it is swept by the next run."""
    return tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{owned_name()}-")


@cache
def _machine() -> str:
    parts = [os.uname().nodename]
    for file in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        try:
            parts.append(Path(file).read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            parts.append("")
    try:
        parts.append(os.readlink("/proc/self/ns/pid"))
        if os.readlink("/proc/self") != str(os.getpid()):
            # It is another namespace's /proc (unshare without --mount-proc): our numbers cannot be looked up there.
            parts.append(uuid.uuid4().hex)
    except OSError:
        parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _begun(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; "" if there is none, None if it cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        # A zombie's work is over, and it keeps its number for as long as its parent likes.
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except OSError:
        pass
    # Where /proc hides the processes of others (hidepid), one that is there has no file in it. Where there is no /proc,
    # as on macOS, a number that somebody has is alive.
    return None if Path("/proc/self/stat").exists() else "0"
