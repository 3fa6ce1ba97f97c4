"""Trainings on Ray Train workers of this machine."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import WorkError
from pipeline.exported_model import ExportedModel
from pipeline.stage import run_stage
from pipeline.training import ray_train, stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.interruption import StopRequest
from pipeline.training.placement import RunnerConfig
from pipeline.training.reporter import DriverReporter
from pipeline.training.stage import ClassificationRecipe, TrainTeacher
from pipeline.training.worker import CheckpointLocation
from tests.held_training import held_recipe

BuildConfig = Callable[..., ClassificationConfig]
SGD = {"kind": "sgd", "lr": 0.05}
STEADY = {"name": "vit_micro", "kwargs": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2}}


@pytest.fixture(scope="module", autouse=True)
def ends_with_the_module() -> Iterator[None]:
    yield
    ray_train.shutdown()


def family(ancestor: int) -> dict[int, str]:
    """Process id -> command line of all that descend from a process."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
    found: dict[int, str] = {}
    for pid in sorted(parents):
        above, seen = pid, set()
        while above in parents and above not in seen:
            seen.add(above)
            above = parents[above]
            if above == ancestor:
                found[pid] = commands.get(pid, "")
                break
    return found


def on_ray(workers: int) -> dict[str, object]:
    return {"runner": "ray", "workers": workers, "cpus_per_worker": 1, "tracking": False}


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Holds trainings at a step while the returned file exists, so that none ends before the test has looked at it."""

    def held(from_step: int) -> Path:
        while_exists = tmp_path / "held"
        while_exists.touch()
        monkeypatch.setattr(stage, "ClassificationRecipe", held_recipe(from_step, while_exists))
        return while_exists

    return held


@pytest.mark.ray
def test_two_workers_end_where_one_process_ends(
    store: ArtifactStore,
    digits: Artifact,
    other_store: ArtifactStore,
    small_config: BuildConfig,
    listeners: Callable[[int], list[Any]],
    hold: Callable[[int], Path],
) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two workers need two cores")
    shape = {"steps": 6, "optimizer": SGD, "model": STEADY}
    notes: list[str] = []
    open_ports: list[Any] = []
    held = hold(1)

    def progress(*, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        notes.append(note)
        if step and not open_ports:
            open_ports.extend(listeners(os.getpid()))
            held.unlink()

    two = run_stage(
        TrainTeacher(), small_config(**shape, runner=on_ray(2)), {"shards": digits}, store=store, progress=progress
    )
    shards = other_store.resolve("shard-dataset/0")
    one = run_stage(TrainTeacher(), small_config(**shape), {"shards": shards}, store=other_store)
    assert two.key == one.key, "where it runs is no part of the key"
    assert two.summary["world"] == 2
    assert "starting 2 workers" in notes
    assert any("RayTrainWorker" in one.command for one in open_ports)
    assert [one for one in open_ports if one.beyond_loopback] == [], "how the workers meet is open to other machines"
    weights, expected = ExportedModel.open(two).weights(), ExportedModel.open(one).weights()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.ray
def test_an_error_in_a_worker_is_one_line_and_is_not_tried_again(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, tmp_path: Path
) -> None:
    recipe = ClassificationRecipe(small_config(), store.storage.url, "shard-dataset/not-there")
    reporter = DriverReporter(lambda **said: None, None, StopRequest())
    location = CheckpointLocation(store.storage.url, "work/x")
    with pytest.raises(WorkError, match=r"artifact shard-dataset/not-there is not there") as caught:
        ray_train.run(recipe, RunnerConfig(cpus_per_worker=1), location, reporter, tmp_path)
    assert "\n" not in str(caught.value)
    assert "Traceback" in (tmp_path / "worker.log").read_text()


@dataclass(frozen=True)
class RepeatedAllocation(ClassificationRecipe):
    """Allocates and frees a large tensor again and again, and fails with the number of pages that the kernel gave."""

    def build(self, device: torch.device, rank: int, world: int) -> Any:
        torch.ones(16 << 20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(16 << 20)
        raise WorkError(f"pages: {resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before}")


@pytest.mark.ray
def test_a_worker_keeps_freed_memory_for_the_next_step(
    store: ArtifactStore, small_config: BuildConfig, tmp_path: Path
) -> None:
    recipe = RepeatedAllocation(small_config(), store.storage.url, "shard-dataset/0")
    reporter = DriverReporter(lambda **said: None, None, StopRequest())
    location = CheckpointLocation(store.storage.url, "work/x")
    with pytest.raises(WorkError, match="pages: ") as caught:
        ray_train.run(recipe, RunnerConfig(cpus_per_worker=1), location, reporter, tmp_path)
    pages = int(str(caught.value).rpartition(" ")[2])
    assert pages < 3 * (64 << 20) // resource.getpagesize(), "freed memory was returned to the kernel"


@pytest.mark.ray
@pytest.mark.parametrize("lost", ["ray::RayTrainWorker", "ray::Channel"])
def test_a_lost_process_of_ray_is_replaced_and_the_training_goes_on(
    lost: str, store: ArtifactStore, digits: Artifact, small_config: BuildConfig, hold: Callable[[int], Path]
) -> None:
    """Without the channel, Ray itself must be started again."""
    killed: list[int] = []
    held = hold(60)

    def kill_once(*, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        if step >= 60 and not killed:
            killed.extend(pid for pid, line in family(os.getpid()).items() if lost in line)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            held.unlink()

    config = small_config(steps=100, checkpoint_every_steps=50, evaluate_every_epochs=0, runner=on_ray(1))
    artifact = run_stage(TrainTeacher(), config, {"shards": digits}, store=store, progress=kill_once)
    assert killed
    assert artifact.summary["steps"] == 100


@pytest.mark.ray
@pytest.mark.heavy
def test_a_terminated_run_leaves_a_checkpoint_of_its_last_step_and_no_process(
    store: ArtifactStore,
    digits: Artifact,
    small_config: BuildConfig,
    child_training: Callable[..., subprocess.Popen[str]],
) -> None:
    """By SIGTERM, which Ray's own handler would answer with an abort; the journeys press Ctrl-C."""
    ray_train.shutdown()
    config = small_config(steps=1_000_000, evaluate_every_epochs=0, runner=on_ray(1))
    child = child_training(store, config)
    reached = next(step for step in steps_of(child) if step > 0)
    started = family(child.pid)
    assert any("raylet" in line for line in started.values())
    child.terminate()
    assert child.wait(timeout=120) in (1, -signal.SIGTERM)
    deadline = time.monotonic() + 10
    while (left := [line for pid, line in started.items() if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    location = next((store.local / "work" / "train-teacher").iterdir())
    newest = max((location / "scratch" / "checkpoints").glob("step-*.json"))
    assert int(newest.stem.removeprefix("step-")) >= max(steps_of(child), default=reached)


# Trains in a thread; with a line on stdin, another thread asks it to stop and ends Ray, as a run does.
STOPPED_BY_ANOTHER_THREAD = """
import sys, threading
from pipeline.artifacts import ArtifactStore
from pipeline.stage import run_stage
from pipeline.training import ray_train
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.interruption import request_stop
from pipeline.training.stage import TrainTeacher

store = ArtifactStore.open(sys.argv[1])
config = ClassificationConfig.model_validate_json(sys.argv[2])

def progress(*, step=0, total=None, note="", **numbers):
    print(note or f"step {step}", flush=True)

def train():
    try:
        run_stage(TrainTeacher(), config, {"shards": store.resolve(sys.argv[3])}, store=store, progress=progress)
    except Exception as error:
        print(error, flush=True)

thread = threading.Thread(target=train)
thread.start()
sys.stdin.readline()
request_stop(within_s=2)
ray_train.shutdown()
thread.join()
"""


@pytest.mark.ray
def test_ray_is_not_ended_while_a_training_waits_for_a_stuck_worker(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    """Ray's C++ exits the process, with status 1, if it is ended while a thread waits in it."""
    config = small_config(steps=1_000_000, evaluate_every_epochs=0, runner=on_ray(1))
    child = subprocess.Popen(
        [sys.executable, "-c", STOPPED_BY_ANOTHER_THREAD, store.storage.url, config.model_dump_json(), digits.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert next(step for step in steps_of(child) if step > 0)
    (worker,) = [pid for pid, line in family(child.pid).items() if "ray::RayTrainWorker" in line]
    os.kill(worker, signal.SIGSTOP)
    said, _ = child.communicate("stop\n", timeout=120)
    assert child.returncode == 0, said
    assert "its workers did not answer, so the last checkpoint counts" in said
    assert not alive(worker)


def steps_of(child: subprocess.Popen[str]) -> Iterator[int]:
    """The steps that a training prints."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("step "):
            yield int(line.split()[1])


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_shutdown_may_be_called_when_nothing_runs() -> None:
    ray_train.shutdown()
    ray_train.shutdown()


def test_a_script_that_never_uses_ray_does_not_import_it() -> None:
    code = "import sys, pipeline.training.stage; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.ray
def test_an_embedded_training_does_without_the_actors_of_clusters() -> None:
    # A new Ray that renames them would bring their 12 s back unseen.
    from ray.train.torch import TorchTrainer

    from pipeline.training.ray_train.trainer import ONLY_FOR_CLUSTERS, EmbeddedTrainer

    def names(trainer: type) -> set[str]:
        return {type(one).__name__ for one in trainer(print)._create_default_callbacks()}

    assert names(TorchTrainer) - names(EmbeddedTrainer) == ONLY_FOR_CLUSTERS
