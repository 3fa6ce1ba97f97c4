"""Whoever does the work, and however often it is killed, the artifact is the same to the bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import WorkError
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.stage import ShardDataset
from pipeline.sharding.writing.runner import StoppedEarlyError, not_stopping, run_in_order
from pipeline.stage import run_stage

Shard = Callable[..., Artifact]
Picture = Callable[..., bytes]

# Forks a child for each number that it reads; the child shards the folder into the store, and ends, or is killed
# at its so many-th call that changes a file: in mid-write, before or after a sync, before or after a rename.
_FORKING = """
import os, signal, sys, threading
import matplotlib.font_manager, numpy, pyarrow.compute
from pipeline.artifacts import ArtifactStore
from pipeline.config import parse_config
from pipeline.sharding.card.contact_sheet import contact_sheet
from pipeline.sharding.stage import ShardDataset
from pipeline.sharding.config import ShardingConfig
from pipeline.stage import run_stage

def deadly(name, left, lock):
    call = getattr(os, name)
    def called(*arguments):
        with lock:
            left[0] -= 1
            last = left[0] == 0
        if last and left[1]:
            call(*arguments)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    setattr(os, name, called)

store, folder, writers = sys.argv[1:]
values = {"source": {"kind": "image_folder", "folder": folder}, "samples_per_shard": 8, "writers": int(writers)}
config = parse_config(ShardingConfig, values, "child").resolved()
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        left, lock = [int(word) for word in line.split()], threading.Lock()
        for name in ("replace", "fsync", "writev", "link"):
            deadly(name, left, lock)
        run_stage(ShardDataset(), config, {}, store=ArtifactStore.open(store))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, picture: Picture) -> Path:
    """160 images of two classes, which take a second to read and to write in 20 shards."""
    root = tmp_path_factory.mktemp("photos")
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for number in range(80):
            seed = number + 1000 * (label == "dog")
            (root / label / f"{number:03d}.png").write_bytes(picture(seed, size=(160, 120)))
    (root / "cat" / "broken.png").write_bytes(picture(0, size=(160, 120))[:5000])
    return root


@pytest.fixture
def shard_photos(photos: Path, tmp_path: Path) -> Callable[..., Artifact]:
    def make(name: str, **values: object) -> Artifact:
        store = ArtifactStore.open(str(tmp_path / name))
        source = {"kind": "image_folder", "folder": str(photos)}
        config = parse_config(ShardingConfig, {"source": source, "samples_per_shard": 8, **values}, "test").resolved()
        return run_stage(ShardDataset(), config, {}, store=store)

    return make


def finished(store: Path) -> dict[str, int]:
    """The files of finished tasks, and their inodes: one that is written again gets another."""
    done = list(store.glob("work/*/*/scratch/*/[!.]*.arrow"))
    files = [path for table in done for path in (table, table.with_suffix(".spool"), table.with_suffix(".tar"))]
    return {path.relative_to(store).as_posix(): path.stat().st_ino for path in files if path.exists()}


@pytest.mark.parametrize("writers", [1, 4])
def test_a_run_killed_again_and_again_ends_in_the_same_bits(
    tmp_path: Path, photos: Path, shard_photos: Callable[..., Artifact], writers: int
) -> None:
    whole = shard_photos("whole", writers=3)
    chance = random.Random(writers)
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", _FORKING, str(killed), str(photos), str(writers)]
    kills, seen = 0, dict[str, int]()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forking:
        assert forking.stdin is not None
        assert forking.stdout is not None
        assert forking.stdout.readline() == "ready\n"
        while True:
            # The end syncs every file of the artifact anew, in one go: so the last child is left alive.
            forking.stdin.write(f"{chance.randint(1, 60)} {chance.randint(0, 1)}\n" if kills < 8 else "0 0\n")
            forking.stdin.flush()
            ended = int(forking.stdout.readline())
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            kills += 1
            if not list(killed.glob("artifacts/*/*")):
                now = finished(killed)
                assert {name: now.get(name) for name in seen} == seen, "what was finished is not done again"
                seen = now
        forking.stdin.close()
    assert kills >= 3
    assert seen, "some work survived a kill"
    shard_photos("killed")  # A run that was killed after its commit is swept up by the next.
    store = ArtifactStore.open(str(killed))
    artifact = store.find(whole.name)
    assert artifact is not None
    assert artifact.files == whole.files
    assert artifact.verify() == []
    assert list((killed / "work" / "shard-dataset").iterdir()) == [], "nothing is left in the scratch"
    for name, inode in seen.items():
        if name.endswith(".tar"):
            assert artifact.path(f"shards/{Path(name).name}").stat().st_ino == inode, (
                "a finished shard is the artifact's"
            )


@pytest.mark.parametrize("writers", [1, 4])
def test_any_number_of_threads_gives_the_same_bits(shard_photos: Callable[..., Artifact], writers: int) -> None:
    assert shard_photos("one", writers=writers).files == shard_photos("other", writers=2).files


def test_a_spool_that_changed_meanwhile_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shard_photos: Callable[..., Artifact]
) -> None:
    from pipeline.sharding import run_modes as writing

    def damaging(*arguments: object, **more: object) -> object:
        spool = next((tmp_path / "damaged").glob("work/*/*/scratch/chunks/*.spool"))
        content = bytearray(spool.read_bytes())
        content[1000] ^= 1
        spool.write_bytes(content)
        return plan(*arguments, **more)

    plan = writing.build_plan
    monkeypatch.setattr(writing, "build_plan", damaging)
    with pytest.raises(WorkError, match="changed since it was read"):
        shard_photos("damaged")


def double(task: int, *, stop: Callable[[], bool]) -> int:
    time.sleep(0.001 * (task % 7))
    return 2 * task


def test_results_come_in_the_order_of_the_tasks_and_few_are_in_flight() -> None:
    asked: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    for done, result in enumerate(run_in_order(double, tasks(), runner="threads", writers=3)):
        assert result == 2 * done
        assert len(asked) - done <= 3 * 4 + 1


def test_what_the_listener_raises_ends_the_work() -> None:
    """It is how a run is cancelled: the display raises when it is told something."""
    begun: list[int] = []

    def wait_for_the_end(task: int, *, stop: Callable[[], bool]) -> int:
        begun.append(task)
        while not stop():
            time.sleep(0.01)
        raise StoppedEarlyError

    def cancelled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_in_order(wait_for_the_end, range(50), runner="threads", writers=2, while_waiting=cancelled))
    assert len(begun) <= 2
    assert not not_stopping()


@pytest.mark.ray
@pytest.mark.servers
def test_two_writers_on_ray_one_of_them_killed_give_the_same_bits_in_s3(
    tmp_path: Path,
    photos: Path,
    shard_photos: Callable[..., Artifact],
    s3_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline import ray_cluster

    monkeypatch.setenv("TUTELAGE_WORK", str(tmp_path / "seen by all"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen: set[str] = set()
    killed: set[int] = set()

    def progress(*, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        seen.update(path.parent.name for path in (tmp_path / "seen by all").rglob("*.arrow"))
        if not killed:
            killed.update(pid for pid, line in processes().items() if "ray::_run_task" in line)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    values = {
        "source": {"kind": "image_folder", "folder": str(photos)},
        "samples_per_shard": 8,
        "runner": "ray",
        "writers": 2,
    }
    config = parse_config(ShardingConfig, values, "test").resolved()
    try:
        artifact = run_stage(ShardDataset(), config, {}, store=ArtifactStore.open(s3_url), progress=progress)
        with pytest.raises(WorkError, match="nothing there"):
            list(run_in_order(failing, [1, 2], runner="ray", writers=2))
    finally:
        ray_cluster.shutdown()
    assert killed
    assert seen >= {"chunks", "shards"}
    assert not [path for path in (tmp_path / "seen by all").rglob("*") if path.is_file()]
    assert artifact.files == shard_photos("threads").files
    assert artifact.verify() == []


def failing(task: int, *, stop: Callable[[], bool]) -> int:
    raise WorkError("nothing there")


def processes() -> Mapping[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found
