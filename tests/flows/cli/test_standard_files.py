"""Standard output may be closed, full or gone: the command does its work, or says what is wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TUTELAGE = [sys.executable, "-m", "flows.cli.app"]


def shell(line: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash in which "$@" is the command line of Tutelage."""
    environment = {**os.environ, "TUTELAGE_STORE": str(folder / "store"), "PYTHONPATH": os.getcwd(), **env}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}", "bash", *TUTELAGE],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_command_works_though_standard_files_are_closed(closed: str, tmp_path: Path) -> None:
    code = (
        "import os, sys; from flows.cli.standard_files import open_standard_files; open_standard_files();"
        "sys.stdout.flush(); sys.stderr.flush(); file = open(sys.argv[1], 'w');"
        "file.write(str(file.fileno())); print('out'); print('err', file=sys.stderr)"
    )
    line = f'"{sys.executable}" -c "{code}" numbers {closed}'
    ended = shell(line, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert int((tmp_path / "numbers").read_text()) > 2


def test_a_full_disk_behind_the_output_is_not_taken_for_that_of_the_store(tmp_path: Path) -> None:
    ended = shell('"$@" models list > /dev/full', tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "tutelage: standard output: cannot be written (No space left on device); send it somewhere else"
    ]


@pytest.mark.parametrize("columns", ["0", "3"])
def test_a_terminal_without_width_does_not_hide_a_table(columns: str, tmp_path: Path) -> None:
    ended = shell('"$@" models list "resnet*"', tmp_path, COLUMNS=columns)
    assert ended.returncode == 0, ended.stderr
    assert "resnet50" in ended.stdout


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_a_run_whose_output_cannot_be_written_is_done_and_says_so(pictures: Path, tmp_path: Path) -> None:
    run = f'"$@" run shard-dataset --preset photos --set data.source.folder="{pictures}" --set leaks=null --json'
    full = shell(f"{run} > /dev/full", tmp_path)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("tutelage: standard output: cannot be written (No space left")
    assert "the run is done" in full.stderr
    gone = shell(f"{run} | true", tmp_path)
    assert gone.returncode == 141, gone.stderr
    assert "cached" in gone.stderr
