"""A full disk, a log or a manifest that cannot be used: one line with the place and what to do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.app import main
from flows.cli.machine_errors import machine_error_line
from pipeline.errors import InputError


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "full", "/data/x.tar"), r"/data/x\.tar: no space left.*free some space"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), r": no space left.*TUTELAGE_STORE"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "x"), "x: no space left"),
        (OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"), "no space left"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left"),
        (sqlite3.OperationalError("database or disk is full"), "no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), "/etc/x: Permission denied; give this user"),
        (OSError(errno.EROFS, "Read-only file system", "/ro/x"), "/ro/x: Read-only file system; give"),
        (OSError(errno.EIO, "Input/output error", "/nfs/x"), "/nfs/x: Input/output error; check that the disk"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (MemoryError(), "give it more memory"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/x']"), "TMPDIR"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b"), "/a/b: Not a directory; check"),
    ],
)  # fmt: skip
def test_what_the_machine_refuses_is_said_with_the_place_and_what_to_do(error: Exception, says: str) -> None:
    import re

    line = machine_error_line(error)
    assert line is not None
    assert re.search(says, line), line
    wrapped = RuntimeError("the stage failed")
    wrapped.__cause__ = error
    assert machine_error_line(wrapped) == line


def test_a_defect_and_an_error_on_purpose_are_not_the_machines() -> None:
    for error in (ValueError("x"), KeyError("x"), InputError("x"), ConnectionResetError("by peer")):
        assert machine_error_line(error) is None
    defect = KeyError("x")
    defect.__context__ = FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/cache")
    assert machine_error_line(defect) is None
    defect.__context__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/cache")
    assert machine_error_line(defect) is not None


WRITES = """
import json, os, resource, signal
import numpy, pyarrow, pyarrow.parquet, torch
from safetensors.torch import save_file
from flows.cli.machine_errors import machine_error_line

table = pyarrow.table({"a": [os.urandom(99) for _ in range(9999)]})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for write in (
    lambda: save_file({"a": torch.zeros(90_000)}, "a.safetensors"),
    lambda: pyarrow.parquet.write_table(table, "a.parquet"),
    lambda: numpy.save("a.npy", numpy.zeros(90_000)),
    lambda: open("a.json", "w").write(json.dumps(list(range(99_999)))),
):
    try:
        write()
    except Exception as error:
        print(machine_error_line(error))
"""


def test_whoever_writes_a_full_disk_is_one_line(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITES]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.count("no space left") == 4, done.stdout + done.stderr


def test_a_disk_without_room_is_refused_before_any_work(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=3_000_000))
    arguments = ["run", "shard-dataset", "--preset", "photos", "--set", f"data.source.folder={pictures}"]
    assert main(arguments) == 2
    assert "only 3.0 MB free; free some space" in capfd.readouterr().err


def artifact(store: Path, name: str, manifest: bytes | None) -> Path:
    folder = store / "artifacts" / "shard-dataset" / name
    folder.mkdir(parents=True)
    if manifest is not None:
        (folder / "manifest.json").write_bytes(manifest)
    return folder


WHOLE = {"format": 1, "stage": "shard-dataset", "key": "aa", "config": {}, "inputs": {}, "files": {}, "summary": {},
         "seconds": 1.0, "origin": {}, "root": ""}  # fmt: skip


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b'{"format": "x"}', b'{"format": 1}', b"[" * 100_000,
     json.dumps({**WHOLE, "files": {"a": 3}}).encode(), json.dumps({**WHOLE, "summary": None}).encode(),
     json.dumps(WHOLE).encode()[:-9], b"<html>Service unavailable</html>"],
)  # fmt: skip
def test_a_manifest_that_is_none_is_a_line_and_hides_no_other_artifact(
    manifest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUTELAGE_STORE", str(tmp_path / "store"))
    artifact(tmp_path / "store", "aa", json.dumps(WHOLE).encode())
    artifact(tmp_path / "store", "bb", manifest)
    assert main(["artifacts", "list"]) == 1
    out, err = capfd.readouterr()
    assert "shard-dataset/aa" in out
    assert err.count("\n") == 1
    assert "bb/manifest.json: not a manifest" in err
    assert main(["artifacts", "show", "shard-dataset/aa"]) == 0
    assert main(["artifacts", "verify"]) == 1
    capfd.readouterr()
    assert main(["artifacts", "show", "shard-dataset/bb"]) == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_a_log_that_cannot_be_written_is_refused_before_any_work(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUTELAGE_STORE", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "logs").write_text("a file where the folder of logs should be")
    arguments = ["run", "shard-dataset", "--preset", "photos", "--set", f"data.source.folder={pictures}"]
    assert main(arguments) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "the run's log cannot be written" in err
    assert not (tmp_path / "store" / "services").exists()


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m flows.cli.app models list | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_a_home_that_is_not_there_is_no_obstacle(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": "/nowhere/at/all", "TUTELAGE_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-m", "flows.cli.app", "doctor", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)
