"""Shared files: whole or absent, whoever is killed; JSON; locks that another process sees."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import WorkError
from pipeline.owners import is_left_over, is_owned
from pipeline.whole_files import atomic_write, locked, open_lock, try_lock, write_json

KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.whole_files import atomic_write

with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""

HELD = """
import sys
from pathlib import Path
from pipeline.whole_files import locked

with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "new" / "file"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["file"]


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ValueError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_writer_leaves_can_be_told_from_work_in_progress(tmp_path: Path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".file.")
    assert is_owned(left.name)
    assert is_left_over(left.name, left.stat().st_mtime)
    with atomic_write(tmp_path / "file") as temporary:
        temporary.touch()
        assert not is_left_over(temporary.name, 0)


def test_a_file_may_be_written_in_a_folder_that_is_swept(tmp_path: Path):
    with atomic_write(tmp_path / "kept" / "file", aside=tmp_path / "aside") as temporary:
        assert temporary.parent == tmp_path / "aside"
        temporary.touch()
    assert (tmp_path / "kept" / "file").exists()
    assert not list((tmp_path / "aside").iterdir())


def test_json_is_utf_8_and_a_nan_in_it_can_be_refused(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"b": "grün", "a": 1}, sort_keys=True)
    assert path.read_bytes() == '{\n "a": 1,\n "b": "grün"\n}\n'.encode()
    with pytest.raises(ValueError):
        write_json(path, [float("nan")], allow_nan=False)
    assert json.loads(path.read_text("utf-8"))["a"] == 1


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
    with locked(path), open_lock(path) as file:
        assert not try_lock(file)


def test_what_cannot_be_a_lock_is_refused_in_a_line(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(WorkError, match="cannot be used as a lock"), locked(path):
            pass


def test_a_file_with_the_longest_name_there_can_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    with atomic_write(path) as unfinished:
        unfinished.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
