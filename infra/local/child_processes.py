"""The processes that a process has started, from Linux's /proc."""

from __future__ import annotations

from pathlib import Path


def child_processes(parent: int) -> set[int]:
    """The ids of a process's children that have not ended; of those that end meanwhile, some or none.

    Without /proc, none.
    """
    proc = Path("/proc")
    if not proc.exists():
        return set()
    return {int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal() and _runs_under(entry, parent)}


def _runs_under(process: Path, parent: int) -> bool:
    try:
        # The second field, the program's name in brackets, may contain anything.
        state, its_parent, *_ = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(its_parent) == parent and state != "Z"
