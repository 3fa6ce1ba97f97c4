"""File locks: another process sees them, and a killed holder does not block it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import WorkError
from pipeline.file_lock import file_lock, open_lock, try_lock

HELD = """
import sys
from pathlib import Path
from pipeline.file_lock import file_lock

with file_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_by_one_process_and_free_when_it_is_killed(tmp_path: Path):
    path = tmp_path / "new" / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HELD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with open_lock(path) as file:
            assert not try_lock(file)
        holder.kill()
    with file_lock(path), open_lock(path) as file:
        assert not try_lock(file)


def test_what_cannot_be_a_lock_is_refused_in_a_line(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(WorkError, match="cannot be used as a lock"), file_lock(path):
            pass
