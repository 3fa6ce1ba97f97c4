"""A worker for which the others wait is named, with the part it is in and its stack; slow ones are not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import WorkError
from pipeline.loading.batch import Batch
from pipeline.training import ray_train
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.hang_watch import HangWatch
from pipeline.training.heartbeat import Heartbeat, Position, heartbeats
from pipeline.training.interruption import StopRequest
from pipeline.training.part_clock import PartClock
from pipeline.training.placement import RunnerConfig
from pipeline.training.reporter import DriverReporter
from pipeline.training.stage import ClassificationRecipe
from pipeline.training.task import TrainingObjects
from pipeline.training.worker import CheckpointLocation

LIMIT = 50.0
DATA, PASS, BETWEEN = (0, "waiting for data"), (1, "forward and backward pass"), (4, "between steps")


def beat(rank: int, step: int, part: tuple[int, str], *, waits: bool = False, stack: str = "") -> Heartbeat:
    return Heartbeat(rank, f"machine{rank}", Position(step, step + 1, *part), stack, waits)


def watch_after(seconds: float, *beats: Heartbeat, silent: int | None = None) -> tuple[str, str] | None:
    """What a watch finds if every beat is repeated each five seconds, but that of the silent rank only once."""
    watch = HangWatch(len(beats), LIMIT)
    for now in range(0, int(seconds) + 1, 5):
        for one in beats:
            if now == 0 or one.rank != silent:
                watch.add(one, float(now))
    return watch.hung(seconds)


def test_the_worker_at_an_earlier_part_is_named_with_its_stack() -> None:
    stack = '  File "loader.py", line 7, in batches\n    sleep()\n'
    beats = beat(0, 9, PASS, waits=True), beat(1, 9, DATA, stack=stack), beat(2, 9, PASS, waits=True)
    assert watch_after(LIMIT, *beats) is None
    found = watch_after(LIMIT + 5, *beats)
    assert found == (
        "rank 1 of 3 workers hangs on machine1 in step 9, waiting for data, for 55 s: the other workers wait for it "
        '(training.hang_timeout_s), at File "loader.py", line 7, in batches',
        stack,
    )


def test_the_one_that_does_not_wait_in_the_common_part_is_named() -> None:
    found = watch_after(LIMIT + 5, beat(0, 9, PASS), beat(1, 9, PASS, waits=True))
    assert found is not None
    assert found[0].startswith("rank 0 of 2 workers hangs on machine0")


def test_a_silent_worker_is_named() -> None:
    found = watch_after(LIMIT + 5, beat(0, 9, PASS, waits=True), beat(1, 9, PASS), silent=1)
    assert found is not None
    assert "rank 1 of 2 workers hangs on machine1 in step 9" in found[0]
    assert "its process does not answer" in found[0]


def test_slow_workers_are_not_named() -> None:
    all_compute = beat(0, 9, PASS), beat(1, 9, PASS)
    assert watch_after(10 * LIMIT, *all_compute) is None
    first_step = beat(0, 0, PASS, waits=True), beat(1, 0, PASS)
    assert watch_after(9 * LIMIT, *first_step) is None
    assert watch_after(11 * LIMIT, *first_step) is not None
    saving = beat(0, 9, (4, "checkpoint")), beat(1, 10, PASS, waits=True)
    assert watch_after(9 * LIMIT, *saving) is None
    assert watch_after(11 * LIMIT, *saving) is not None


def test_where_steps_are_long_the_limit_is_too() -> None:
    watch = HangWatch(2, LIMIT)
    for now, step in ((0.0, 8), (40.0, 9)):  # 40 s in a part of step 8
        watch.add(beat(0, step, PASS, waits=True), now)
        watch.add(beat(1, step, PASS), now)

    def stood(seconds: float) -> tuple[str, str] | None:
        for rank in range(2):
            watch.add(beat(rank, 9, PASS, waits=rank == 0), 40.0 + seconds)
        return watch.hung(40.0 + seconds)

    assert stood(119.0) is None
    found = stood(121.0)
    assert found is not None
    assert "rank 1 of 2 workers" in found[0]


def test_nothing_is_named_while_a_worker_moves_or_after_one_has_ended() -> None:
    watch = HangWatch(2, LIMIT)
    for step in range(100):
        watch.add(beat(0, step, PASS, waits=True), 5.0 * step)
        watch.add(beat(1, 9, DATA), 5.0 * step)
        assert watch.hung(5.0 * step) is None
    watch.add(Heartbeat(0, "machine0", Position(9, 10, 1, "x"), ended=True), 500.0)
    watch.add(beat(1, 9, DATA), 600.0)
    assert watch.hung(600.0) is None


def test_a_driver_that_slept_names_nobody() -> None:
    watch = HangWatch(2, LIMIT)
    for rank in range(2):
        watch.add(beat(rank, 9, PASS), 0.0)
    assert watch.hung(10_000.0) is None


def test_heartbeats_have_the_stack_of_a_training_that_stands_still() -> None:
    sent: list[Heartbeat] = []
    clock, blocked = PartClock(torch.device("cpu")), threading.Event()

    def stand_still() -> None:
        clock.start()
        clock.lap("data_wait")
        with heartbeats(3, lambda: clock.position(7), sent.append, every_s=0.05):
            blocked.wait(5)

    thread = threading.Thread(target=stand_still)
    thread.start()
    deadline = time.monotonic() + 5
    while not any(one.stack for one in sent) and time.monotonic() < deadline:
        time.sleep(0.02)
    blocked.set()
    thread.join()
    still = next(one for one in sent if one.stack)
    assert "in stand_still" in still.stack
    assert still.position == Position(7, 1, 1, "forward and backward pass")
    assert not still.waits
    assert sent[-1].ended


@dataclass(frozen=True)
class StuckRecipe(ClassificationRecipe):
    """Writes the process ids of its ranks; rank 1 waits for its fifth batch for a long time."""

    folder: str = ""
    sleeps: bool = False

    def build(self, device: torch.device, rank: int, world: int) -> TrainingObjects:
        objects = super().build(device, rank, world)
        (Path(self.folder) / f"pid-{rank}").write_text(str(os.getpid()))
        batches = objects.loader.batches

        def stuck(start_step: int, stop_step: int) -> Generator[Batch]:
            for batch in batches(start_step, stop_step):
                if self.sleeps and rank == 1 and batch.step == 4:
                    time.sleep(600)
                yield batch

        objects.loader.batches = stuck  # type: ignore[method-assign]
        return objects


@pytest.mark.ray
@pytest.mark.parametrize("cause", ["sleep", "stopped process"])
def test_a_worker_that_hangs_ends_the_run_with_its_name(
    store: ArtifactStore,
    digits: Artifact,
    small_config: Callable[..., ClassificationConfig],
    tmp_path: Path,
    cause: str,
) -> None:
    config = small_config(steps=100_000, hang_timeout_s=8)
    recipe = StuckRecipe(config, store.storage.url, digits.name, folder=str(tmp_path), sleeps=cause == "sleep")

    first_step_at: list[float] = []

    def progress(*, step: int = 0, **numbers: Any) -> None:
        if not step:
            return
        first_step_at.append(time.monotonic())
        # Once its heartbeats tell of later steps: in a first step it may take ten times as long.
        if cause == "stopped process" and first_step_at[-1] - first_step_at[0] > 6:
            os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGSTOP)

    reporter = DriverReporter(progress, None, StopRequest())
    location = CheckpointLocation(store.storage.url, "work/x")
    runner = RunnerConfig(workers=2, cpus_per_worker=1, use_gpu="no", max_failures=0)
    try:
        with pytest.raises(WorkError, match=r"rank 1 of 2 workers hangs on \S+ in step \d+") as caught:
            ray_train.run(recipe, runner, location, reporter, tmp_path)
    finally:
        ray_train.shutdown()
    said, log = str(caught.value), (tmp_path / "worker.log").read_text()
    if cause == "sleep":
        assert "in step 4, waiting for data" in said
        assert "the other workers wait for it" in said
        assert "in stuck" in log
    else:
        assert "its process does not answer" in said
    worker = Path("/proc", (tmp_path / "pid-1").read_text())
    deadline = time.monotonic() + 30
    while worker.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not worker.exists(), "the stopped worker still exists"
