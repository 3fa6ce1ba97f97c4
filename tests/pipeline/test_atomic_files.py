"""Atomic writes: a file is complete or absent, even if its writer is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.atomic_files import atomic_write
from pipeline.owners import is_left_over, is_owned

KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.atomic_files import atomic_write

with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
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


def test_a_killed_writers_file_is_distinguished_from_work_in_progress(tmp_path: Path):
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


def test_a_file_with_the_longest_name_there_can_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
