"""Decoding processes: the batches that threads give, and no process that outlives its use."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import DamagedError, WorkError
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.auto_augment_config import AugMixConfig
from pipeline.loading.decode_processes import _picklable
from pipeline.loading.loader import Loader
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.progressive import ImageSizeSchedule
from pipeline.loading.quarantine import Quarantine
from pipeline.loading.reader import SampleReader
from pipeline.loading.remote_shards import RemoteMode

AUGMENT = AugmentConfig(crop_min_area=0.4, flip=0.5, erase=0.3)
ONLY_CROPS = AugmentConfig(crop_min_area=0.4, flip=0.5, brightness=0, contrast=0, saturation=0)


def loader_of(shards: Any, **changed: Any) -> Loader:
    options: dict[str, Any] = {"image_size": 24, "augment": AUGMENT, "seed": 5, **changed}
    policy = Shuffled(shards.index.rows("train"), 14, seed=1)
    reader = SampleReader(shards.artifact, shards.index, remote=options.pop("remote", "parts"))
    return Loader(reader, shards.index, policy, **options)


def processes_of(loader: Loader) -> list[subprocess.Popen[bytes]]:
    assert loader._processes is not None
    assert loader._processes._processes is not None
    return list(loader._processes._processes._processes)


def assert_same(batches: Any, expected: Any) -> None:
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.ids, other.ids)
        assert torch.equal(batch.images, other.images)
        assert batch.images.stride() == other.images.stride()


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# A process takes seconds to start, so few are started here.


def test_processes_wait_for_the_next_batches_unless_some_are_left_and_a_lost_one_is_replaced(
    shards: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where a batch has fewer rows than there are processes."""
    share = {"rank": 4, "world": 14}
    expected = list(loader_of(shards, **share).batches(0, 12))
    loader = loader_of(shards, processes=2, threads=2, prefetch=3, **share)
    assert_same(loader.batches(0, 4), expected[:4])
    first = processes_of(loader)
    batches = loader.batches(4, 12)
    assert_same([next(batches), next(batches)], expected[4:6])
    assert processes_of(loader) == first
    first[1].kill()
    assert_same(batches, expected[6:])
    assert [process.returncode for process in first] == [0, -9]
    assert loader.lost_processes == 1
    assert "decoding process 2 of 2 was killed by signal 9 (if memory ran out, lower loader.processes)" in caplog.text

    second = processes_of(loader)
    batches = loader.batches(0, 12)
    next(batches)
    batches.close()
    assert [process.returncode for process in second] == [0, 0]

    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit(1)")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(WorkError, match=r"^decoding process 1 of 2 ended with code 1$"):
        next(loader.batches(0, 12))
    loader.close()


@pytest.mark.usefixtures("forked_decoding")
def test_batches_of_any_size_are_those_of_threads_and_nobody_need_close_their_loader(shards: Any) -> None:
    changed = {"augment": ONLY_CROPS, "copies": 2, "image_size_schedule": ImageSizeSchedule(16, (32, 24), 5 * 28)}
    loader = loader_of(shards, processes=2, threads=1, **changed)
    assert_same(loader.batches(2, 11), loader_of(shards, **changed).batches(2, 11))
    processes = processes_of(loader)
    del loader
    gc.collect()
    assert [process.returncode for process in processes] == [0, 0]


@pytest.mark.usefixtures("forked_decoding")
def test_every_new_augmentation_is_that_of_threads(shards: Any) -> None:
    augment = AugmentConfig(
        interpolation="bicubic", hue=0.2, erase=0.5, erase_fill="noise", auto_augment=AugMixConfig(severity=9)
    )
    with closing(loader_of(shards, augment=augment, processes=2)) as loader:
        assert_same(loader.batches(0, 3), loader_of(shards, augment=augment, threads=1).batches(0, 3))


@pytest.mark.usefixtures("forked_decoding")
def test_damaged_samples_are_left_out_as_by_threads(own_shards: Any) -> None:
    place = own_shards.artifact.path("shards/train-00000.tar")
    data = bytearray(place.read_bytes())
    for id in (3, 4, 17):
        data[int(own_shards.index.offsets[id]) + int(own_shards.index.lengths[id]) // 2] ^= 16
    place.write_bytes(data)
    loader, other = (loader_of(own_shards, quarantine=Quarantine(60, 0.2), processes=number) for number in (1, 0))
    assert_same(loader.batches(0, 9), other.batches(0, 9))
    assert loader.quarantine is not None
    assert other.quarantine is not None
    assert loader.quarantine.lines() == other.quarantine.lines()
    assert {line["sample"] for line in loader.quarantine.lines()} == {3, 4, 17}
    loader.quarantine = None
    with pytest.raises(DamagedError, match=r"sample pic0(03|04|17) at byte"):
        list(loader.batches(0, 9))


@pytest.mark.usefixtures("forked_decoding")
def test_an_error_in_a_process_is_the_trainers_with_the_lines_that_led_to_it(own_shards: Any) -> None:
    loader = loader_of(own_shards, processes=1)
    shard = own_shards.artifact.path("shards/train-00001.tar")
    shard.unlink()
    shard.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        list(loader.batches(0, 9))
    assert "in a decoding process" in caught.value.__notes__[0]
    assert "reader.py" in caught.value.__notes__[0]
    shutil.rmtree(own_shards.artifact.path("shards/train-00000.tar").parents[1])
    with pytest.raises(DamagedError, match=r"shard-dataset/0123456789abcdef0123: was committed and is no longer in"):
        list(loader.batches(0, 9))


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    class LocalError(Exception):
        pass

    sent = _picklable(LocalError("of this function"))
    assert type(sent) is RuntimeError
    assert str(sent) == "LocalError('of this function')"


_TRAINER = """
import sys
from pipeline.artifacts import ArtifactStore
from pipeline.loading.loader import build_loader
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.index import SampleIndex

artifact = ArtifactStore.open(sys.argv[1]).resolve("shard-dataset/0123")
index = SampleIndex.open(artifact)
policy = Shuffled(index.rows("train"), 14, seed=1)
reader = SampleReader(artifact, index)
loader = build_loader(LoaderConfig(processes=1), reader, index, policy, image_size=24, seed=5, samples=60)
for batch in loader.batches(0, 10**9):
    if batch.step == 2:
        print(*(process.pid for process in loader._processes._processes._processes), flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_a_trainer_that_is_killed_or_interrupted(shards: Any, tmp_path: Path, how: int) -> None:
    """A Ctrl-C reaches the trainer's process group, and is told by the trainer alone. Its script has no main guard."""
    script = tmp_path / "trainer.py"
    script.write_text(textwrap.dedent(_TRAINER))
    store = shards.artifact.storage.local_path("")
    with subprocess.Popen(
        [sys.executable, str(script), str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as trainer:
        assert trainer.stdout is not None
        assert trainer.stderr is not None
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        assert len(pids) == 1
        assert all(alive(pid) for pid in pids)
        os.killpg(trainer.pid, how)
        assert trainer.wait(30) == -how
        assert eventually(lambda: not any(alive(pid) for pid in pids))
        assert trainer.stderr.read().count("Traceback") == (how == signal.SIGINT)


@pytest.mark.servers
@pytest.mark.parametrize("remote", ["parts", "ranges"])
def test_batches_from_s3_are_those_from_disk(shards: Any, s3_shards: Any, remote: RemoteMode) -> None:
    loader = loader_of(s3_shards, processes=1, threads=2, remote=remote)
    assert_same(loader.batches(0, 9), loader_of(shards).batches(0, 9))
    loader.close()
