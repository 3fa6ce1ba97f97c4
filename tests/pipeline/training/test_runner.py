"""Whole trainings of small models: killed, stopped, shared out."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.reporter import NullReporter
from pipeline.training.stage import ClassificationRecipe, TrainTeacher
from pipeline.training.worker import CheckpointLocation, train_recipe
from tests.forked import Forked

BuildConfig = Callable[..., ClassificationConfig]
Start = Callable[[ArtifactStore, ClassificationConfig], subprocess.Popen[str]]


def bits(artifact: Artifact) -> bytes:
    return artifact.read("model/model.safetensors")


def wait_for_step(child: subprocess.Popen[str], wanted: int) -> int:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("step ") and int(line.split()[1]) >= wanted:
            return int(line.split()[1])
    raise AssertionError(f"the child ended before step {wanted}")


def test_killed_run_ends_in_the_same_bits(
    store: ArtifactStore,
    digits: Artifact,
    other_store: ArtifactStore,
    small_config: BuildConfig,
    forked_training: Callable[..., Forked],
) -> None:
    config = small_config(steps=80, checkpoint_every_steps=10, evaluate_every_epochs=0, precision="auto")
    child = forked_training(store, config, held_from=50)
    work = store.local / "work" / "train-teacher"
    while not list(work.glob("*/scratch/checkpoints/step-*.json")):
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not list(store.list("train-teacher")), "it was quicker than its killer"

    resumed = run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    straight = run_stage(TrainTeacher(), config, {"shards": other_store.resolve("shard-dataset/0")}, store=other_store)
    assert resumed.key == straight.key
    assert bits(resumed) == bits(straight)


def test_a_run_without_tracking_needs_no_tracker(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.training.tracking", None)  # importing it is an error
    artifact = run_stage(TrainTeacher(), small_config(steps=1), {"shards": digits}, store=store)
    assert artifact.summary["steps"] == 1


def test_a_terminated_run_writes_a_checkpoint_and_then_dies_of_the_signal(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, child_training: Start
) -> None:
    config = small_config(steps=100_000, evaluate_every_epochs=0)
    child = child_training(store, config)
    wait_for_step(child, 5)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=30) == -signal.SIGTERM
    place = next((store.local / "work" / "train-teacher").iterdir())
    assert len(list((place / "scratch" / "checkpoints").glob("step-*.json"))) == 1


def test_unequal_ranks_end_where_one_worker_ends(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, train_ranks: Callable[..., CheckpointLocation]
) -> None:
    # 32 rows on 3 ranks are 10, 11 and 11; SGD, since Adam turns rounding of tiny gradients into steps.
    config = small_config(
        steps=6,
        accumulation=2,
        optimizer={"kind": "sgd", "lr": 0.05},
        model={"name": "vit_micro", "kwargs": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2}},
    )
    alone = CheckpointLocation(store.storage.url, "work/alone")
    recipe = ClassificationRecipe(config, store.storage.url, digits.name)
    train_recipe(recipe, torch.device("cpu"), 0, 1, alone, NullReporter())

    shared = train_ranks(store, config, 3)
    one = alone.open().newest()
    three = shared.open().newest()
    assert one is not None
    assert three is not None
    for part in ("model", "average"):
        for name, value in one.tensors[part].items():
            torch.testing.assert_close(three.tensors[part][name], value, rtol=1e-4, atol=1e-5)
    losses = [[row["train/loss"] for row in run.notes["rows"] if "train/loss" in row] for run in (one, three)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    measured = [[row["val/loss"] for row in run.notes["rows"] if "val/loss" in row] for run in (one, three)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)


def test_the_stage_leaves_a_model_that_knows_digits(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    config = small_config(
        steps=250, model={"kwargs": {"patch_size": 4, "width": 48, "depth": 2, "heads": 2}}, ema_decay=0.95,
        loader={"augment": None}, optimizer={"kind": "adamw", "lr": 3e-3},
    )  # fmt: skip
    artifact = run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    rows = [json.loads(line) for line in artifact.read("metrics.jsonl").decode().splitlines()]
    assert rows[-1]["val/accuracy"] > 0.5  # chance is 0.1
    assert artifact.summary["val_accuracy"] == pytest.approx(rows[-1]["val/accuracy"], abs=1e-4)
    assert json.loads(artifact.read("training.json"))["steps"] == 250
    exported = ExportedModel.open(artifact)
    assert exported.labels == tuple("0123456789")
    assert exported.build()(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


def test_streams_copies_and_growing_images_train(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    config = small_config(
        steps=60, model={"name": "resnet_small", "kwargs": {"widths": [8, 16], "depths": [1, 1]}}, image_size=16,
        policy={"kind": "streams", "streams": 4, "block": 50, "window_blocks": 2},
        loader={"copies": 2, "smaller_sizes": [12], "augment": {"rand_augment": {"layers": 1}}},
    )  # fmt: skip
    artifact = run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    rows = [json.loads(line) for line in artifact.read("metrics.jsonl").decode().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"name": "vit_mikro", "kwargs": {}}}, "vit_micro"),
        ({"model": {"name": "vit_micro", "kwargs": {"heads": 5}}}, "model:"),
        ({"loader": {"copies": 3}}, "3 copies of each sample do not fill a batch of 32"),
        ({"loader": {"smaller_sizes": [8]}}, "smaller_sizes: the model takes no images of 8 pixels"),
        ({"runner": {"runner": "process", "workers": 2, "tracking": False}}, "runner=process has one worker"),
        ({"runner": {"runner": "process", "use_gpu": "yes", "tracking": False}}, "torch sees no GPU"),
        ({"runner": {"runner": "ray", "workers": 999, "tracking": False}, "global_batch": 1024}, "999"),
        ({"runner": {"runner": "ray", "workers": 33, "tracking": False}}, "33 workers share global_batch=32"),
        ({"runner": {"runner": "ray", "use_gpu": "yes", "tracking": False}}, "there are 0 GPUs"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_work(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, change: dict[str, object], said: str
) -> None:
    if torch.cuda.is_available() and "use_gpu" in str(change):
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=said):
        run_stage(TrainTeacher(), small_config(**change), {"shards": digits}, store=store)
