"""What killed processes left is swept; what may be somebody's is not."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import owners
from pipeline.artifacts import ArtifactStore
from pipeline.left_over import sweep
from pipeline.owners import is_left_over, owned_name
from pipeline.storage import open_storage, s3

NAME = """
import sys
sys.path.insert(0, ".")
from pipeline.owners import owned_name
print(owned_name(), flush=True)
"""
AN_HOUR_AGO = time.time() - 3600
LONG_AGO = time.time() - 8 * 24 * 3600


@pytest.fixture(scope="module")
def dead() -> str:
    """The name of something that a process which is gone had in the making."""
    return subprocess.run([sys.executable, "-c", NAME], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return ArtifactStore.open(str(tmp_path / "store"))


def of_another_machine(name: str) -> str:
    return "0" * 12 + name[12:]


def put(path: Path, modified: float = 0.0, *, folder: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        path.mkdir()
        (path / "file").write_bytes(b"x")
    else:
        path.write_bytes(b"x")
    if modified:
        os.utime(path, (modified, modified))
    return path


def test_the_owner_of_a_name_is_known_to_be_gone_on_its_machine_only(dead: str) -> None:
    assert is_left_over(dead, time.time())
    assert not is_left_over(owned_name(), LONG_AGO)
    elsewhere = of_another_machine(dead)
    assert not is_left_over(elsewhere, AN_HOUR_AGO)
    assert is_left_over(elsewhere, LONG_AGO)


def test_a_number_that_another_process_has_now_does_not_bring_the_owner_back() -> None:
    machine, pid, begun, random = owned_name().split("-")
    assert is_left_over(f"{machine}-{pid}-{int(begun) - 1}-{random}", time.time())


def test_a_zombies_work_is_over() -> None:
    child = subprocess.Popen([sys.executable, "-c", NAME], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_left_over(name, time.time())
    child.wait()
    child.stdout.close()


def test_a_live_process_that_proc_hides_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    name, read_text = owned_name(), Path.read_text

    def hidden(path: Path, *args: Any, **kwargs: Any) -> str:
        if str(path).startswith("/proc/") and path.name == "stat":
            raise FileNotFoundError(path)
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", hidden)
    assert not is_left_over(name, AN_HOUR_AGO)
    assert is_left_over(dead, time.time())


def test_what_gone_processes_left_aside_is_removed_and_nothing_else(
    store: ArtifactStore, dead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other tests leave files in the machine's
    aside, fetched = store.local / ".aside", store.local / "fetched" / ".aside"
    gone = [
        put(aside / dead),
        put(aside / f"probe-{dead}"),
        put(fetched / f"{dead}.a1B2c3"),
        put(aside / of_another_machine(dead), LONG_AGO),
        put(aside / ("ab" * 16), LONG_AGO),  # of a version before
        put(store.local / "checked" / f".{dead}"),
        put(Path(tempfile.gettempdir()) / f"tutelage-{dead}-x", folder=True),
    ]
    with subprocess.Popen([sys.executable, "-c", f"{NAME}input()"], stdin=-1, stdout=-1, text=True) as alive:
        assert alive.stdout is not None
        stays = [
            put(aside / "lock", LONG_AGO),
            put(aside / alive.stdout.readline().strip(), LONG_AGO),
            put(aside / owned_name(), LONG_AGO),
            put(aside / f"x{of_another_machine(dead)}", AN_HOUR_AGO),
            put(aside / ("cd" * 16), AN_HOUR_AGO),
            put(aside / "somebody's notes", LONG_AGO),
            put(Path(tempfile.gettempdir()) / "tutelage-of-another-kind", LONG_AGO),
            put(store.local / "artifacts" / dead / "file", LONG_AGO),
        ]
        assert len(sweep(store)) == len(gone)
        assert [path for path in gone if path.exists()] == []
        assert [path for path in stays if not path.exists()] == []
        alive.communicate("\n")
    assert sweep(store) == [str(stays[1])]


def test_work_of_gone_runs_keeps_its_scratch_until_its_artifact_is_committed(store: ArtifactStore, dead: str) -> None:
    def work(key: str, owner: str = dead) -> Path:
        place = store.work / "stage" / key
        put(place / "lock").write_text(owner)
        put(place / "output" / "half.tar")
        return put(place / "scratch" / "checkpoint").parents[1]

    begun, committed, running = work("begun"), work("committed"), work("running")
    elsewhere, for_weeks = (work(key, of_another_machine(dead)) for key in ("elsewhere", "for-weeks"))
    os.utime(for_weeks / "lock", (LONG_AGO, LONG_AGO))
    put(store.local / "out" / "a")
    about = {"config": {}, "inputs": {}, "summary": {}, "seconds": 1.0, "origin": {}}
    store.commit("stage", "committed", store.local / "out", **about)
    with (running / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep(store)
    assert not (begun / "output").exists()
    assert (begun / "scratch" / "checkpoint").exists()
    assert not committed.exists()
    assert (running / "output" / "half.tar").exists()
    assert (elsewhere / "output" / "half.tar").exists()
    assert (for_weeks / "output" / "half.tar").exists()
    for path in [for_weeks, *for_weeks.rglob("*")]:
        os.utime(path, (LONG_AGO, LONG_AGO))
    sweep(store)
    assert not (for_weeks / "output").exists()


KILLED = """
import os, sys, signal
sys.path.insert(0, ".")
from pathlib import Path
from pipeline.storage.s3 import S3Storage
storage = S3Storage.from_url(sys.argv[1])
def killed(prefix, sent):
    storage._client.create_multipart_upload(Bucket=storage.bucket, Key=storage._key(prefix + "x"))
    os.kill(os.getpid(), signal.SIGKILL)
storage._confirm_all = killed
storage.publish(Path(sys.argv[2]), sys.argv[3], {})
"""


@pytest.mark.servers
def test_an_attempt_of_a_killed_process_is_swept_from_s3(
    s3_url: str, tmp_path: Path, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(s3_url)
    assert storage.publish(put(tmp_path / "good", folder=True), "artifacts/s/good", {})
    before = [info.path for info in storage.list()]
    assert len(before) == 2
    folder = put(tmp_path / "out", folder=True)
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-c", KILLED, s3_url, str(folder), "artifacts/s/k"], check=False)
        assert ended.returncode == -9
    # Of an attempt whose owner cannot be looked up, and of one that lives.
    others = [f"attempt-{of_another_machine(dead)}", f"attempt-{owned_name()}"]
    for name in others:
        storage.write(f".aside/{name}", f"artifacts/s/k/{name}/".encode())
        storage.write(f"artifacts/s/k/{name}/file", b"x")
    storage.write(f".aside/probe-{dead}", b"probe")
    assert storage.sweep() == []
    monkeypatch.setattr(s3, "_MIN_IDLE_S", -60.0)
    swept = storage.sweep()
    assert len([path for path in swept if path.endswith("/x")]) == 2
    left = {info.path for info in storage.list()} - set(before)
    assert left == {f".aside/{name}" for name in others} | {f"artifacts/s/k/{name}/file" for name in others}
    # A week without a change ends the doubt about the first.
    monkeypatch.setattr(owners, "LEFT_OVER_AFTER_S", -1.0)
    assert storage.sweep() == [f"artifacts/s/k/{others[0]}/"]


@pytest.mark.servers
def test_a_committed_attempt_is_not_swept_though_its_process_was_killed_right_after(
    s3_url: str, tmp_path: Path, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_MIN_IDLE_S", -60.0)
    storage = open_storage(s3_url)
    root = f"attempt-{dead}/"
    storage.write(f".aside/attempt-{dead}", f"artifacts/s/k/{root}".encode())
    storage.write(f"artifacts/s/k/{root}file", b"x")
    storage.write("artifacts/s/k/manifest.json", f'{{"root": "{root}"}}'.encode())
    assert storage.sweep() == []
    assert [info.path for info in storage.list()] == [f"artifacts/s/k/{root}file", "artifacts/s/k/manifest.json"]
