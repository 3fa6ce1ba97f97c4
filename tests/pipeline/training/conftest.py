"""Scanned digits as a shards artifact, and trainings on them, in this process and in child processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.sharding.format.index import SampleRow, content_hash
from pipeline.sharding.mixture.stage import MixDatasets, MixDatasetsConfig
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.worker import CheckpointLocation
from tests.forked import Forked
from tests.small_shards import SmallShards, index_of

SIDE = 16
SHARDS_KEY = "00000000000000d19175"

# A transformer, so no batch statistics; with stochastic depth, so random numbers matter.
SMALL = {
    "model": {"name": "vit_micro", "kwargs": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2, "drop_path": 0.2}},
    "image_size": SIDE,
    "channels": 1,
    # In float32, sums in another order agree to 1e-5; in bfloat16, which "auto" uses if the CPU has it, to 1e-2.
    "training": {
        "steps": 24,
        "epochs": None,
        "global_batch": 32,
        "ema_decay": 0.9,
        "log_every_steps": 8,
        "precision": "float32",
    },
    "runner": {"runner": "process", "tracking": False, "cpus_per_worker": 1},
}

# Trains as a stage, one line per step; kill tests interrupt it.
_CHILD = """
import sys
from pipeline.artifacts import ArtifactStore
from pipeline.config import parse_config
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import TrainTeacher

store = ArtifactStore.open(sys.argv[1])
config = ClassificationConfig.model_validate_json(sys.argv[2])

def progress(*, step=0, total=None, note="", **numbers):
    print(f"step {step}" if not note else note, flush=True)

if __name__ == "__main__":
    artifact = run_stage(TrainTeacher(), config, {"shards": store.resolve(sys.argv[3])}, store=store, progress=progress)
    print("built", artifact.name, flush=True)
"""

_HELD = """
from pathlib import Path
from pipeline.training import stage
from tests.held_training import held_recipe

stage.ClassificationRecipe = held_recipe({held_from}, Path("{there}"))
"""

# One rank of a training without Ray.
_RANK = """
import sys
import torch
import torch.distributed as dist
from pipeline.training.reporter import NullReporter
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import ClassificationRecipe
from pipeline.training.worker import CheckpointLocation, train_recipe

rank, world, rendezvous, device, store, config, shards = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=int(world))
recipe = ClassificationRecipe(ClassificationConfig.model_validate_json(config), store, shards)
location = CheckpointLocation(store, "work/ranks")

def train(recipe, location):
    train_recipe(recipe, torch.device(device), int(rank), int(world), location, NullReporter())

train(recipe, location)
"""


@cache
def digit_images() -> tuple[list[bytes], list[int]]:
    """300 PNGs and their labels."""
    digits, images = load_digits(), []
    for pixels in digits.images[:300]:
        buffer = io.BytesIO()
        Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((SIDE, SIDE)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    return images, [int(label) for label in digits.target[:300]]


def write_digits(store: ArtifactStore, validation: int = 60) -> Artifact:
    """300 digits, the last `validation` for validation; every 20th has no label."""
    folder = store.local / "new"
    rows = []
    images, labels = digit_images()
    with SmallShards(folder, samples_per_shard=100) as tar:
        for number in range(300):
            split = 0 if number < 300 - validation else 1
            data = images[number]
            member = tar.add(("train", "val")[split], f"digit{number:03d}", [("png", data)])
            rows.append(
                SampleRow(
                    key=f"digit{number:03d}",
                    shard=member.shard,
                    offset=member.offset,
                    length=member.length,
                    label=-1 if number % 20 == 19 else labels[number],
                    captions=(),
                    width=SIDE,
                    height=SIDE,
                    content_hash=content_hash(data),
                    split=split,
                    group=number,
                    node=-1,
                    family="scan",
                )
            )
    names = [str(digit) for digit in range(10)]
    index_of(rows, shard_names=tar.shard_names, label_names=names).write(folder)
    return store.commit("shard-dataset", SHARDS_KEY, folder, config={}, inputs={}, summary={}, seconds=0, origin={})


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Limits torch to one thread: these models are too small to split among cores."""
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path / "store"))


@pytest.fixture
def digits(store: ArtifactStore) -> Artifact:
    """The digits, in `store`."""
    return write_digits(store)


@pytest.fixture
def digits_without_validation(store: ArtifactStore) -> Artifact:
    """The digits, all of them for training."""
    return write_digits(store, validation=0)


@pytest.fixture
def small_config() -> Callable[..., ClassificationConfig]:
    """A config with a training of one second; keyword arguments set fields of the config or of its `training`."""

    def build(**changes: Any) -> ClassificationConfig:
        values: dict[str, Any] = {
            name: dict(value) if isinstance(value, dict) else value for name, value in SMALL.items()
        }
        for name, value in changes.items():
            if name in ClassificationConfig.model_fields:
                values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
            else:
                values["training"][name] = value
        return ClassificationConfig.model_validate(values)

    return build


@pytest.fixture
def child_training(tmp_path: Path) -> Callable[[ArtifactStore, ClassificationConfig], subprocess.Popen[str]]:
    """Starts a training on the store's digits in its own process (and session)."""

    def start(store: ArtifactStore, config: ClassificationConfig) -> subprocess.Popen[str]:
        script = tmp_path / "child_training.py"
        script.write_text(_CHILD)
        uri = f"shard-dataset/{SHARDS_KEY}"
        return subprocess.Popen(
            [sys.executable, str(script), store.storage.url, config.model_dump_json(), uri],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    return start


@pytest.fixture
def forked_training() -> Callable[..., Forked]:
    """Starts the same training in a forked process; from step `held_from` on it waits for its killer."""

    def start(store: ArtifactStore, config: ClassificationConfig, held_from: int | None = None) -> Forked:
        code = _CHILD if held_from is None else f"{_HELD.format(held_from=held_from, there=store.local)}{_CHILD}"
        uri = f"shard-dataset/{SHARDS_KEY}"
        return Forked(code, store.storage.url, config.model_dump_json(), uri, with_errors=True)

    return start


@pytest.fixture
def train_ranks(tmp_path: Path) -> Callable[..., CheckpointLocation]:
    """Trains on the store's digits as ranks of a gloo group, one process each; returns their checkpoint location.

    `after` is code that each rank runs after the training.
    """

    def train(
        store: ArtifactStore, config: ClassificationConfig, world: int, device: str = "cpu", after: str = ""
    ) -> CheckpointLocation:
        code = f"{_RANK}{after}\ndist.destroy_process_group()\n"
        rendezvous = f"{mkdtemp(dir=tmp_path)}/ranks"  # a file: a free port may be taken before it is bound
        common = [str(world), rendezvous, device, store.storage.url, config.model_dump_json()]
        ranks = [Forked(code, str(rank), *common, f"shard-dataset/{SHARDS_KEY}") for rank in range(world)]
        assert [rank.wait(timeout=240) for rank in ranks] == [0] * world
        return CheckpointLocation(store.storage.url, "work/ranks")

    return train


@pytest.fixture
def other_store(tmp_path: Path) -> ArtifactStore:
    """A second store with the same digits."""
    other = ArtifactStore.open(str(tmp_path / "other"))
    write_digits(other)
    return other


def write_bars(store: ArtifactStore) -> Artifact:
    """40 pictures of 20 pixels with a bright row (label "1", as a digit is called) or a bright column (label "bar")."""
    folder, rows = store.local / "bars", []
    with SmallShards(folder, samples_per_shard=15) as tar:
        for number in range(40):
            split, label = int(number >= 30), number % 2
            pixels = np.random.default_rng(number).integers(0, 60, (20, 20), dtype=np.uint8)
            pixels[(number // 2 % 20, slice(None)) if label else (slice(None), number // 2 % 20)] = 250
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            member = tar.add(("train", "val")[split], f"bar{number}", [("png", buffer.getvalue())])
            rows.append(
                SampleRow(
                    f"bar{number}", member.shard, member.offset, member.length, label, (), 20, 20,
                    content_hash(buffer.getvalue()), split, number, -1, "drawn",
                )
            )  # fmt: skip
    index_of(rows, shard_names=tar.shard_names, label_names=["bar", "1"]).write(folder)
    return store.commit("shard-dataset", "ba45", folder, config={}, inputs={}, summary={}, seconds=0, origin={})


@pytest.fixture
def both(store: ArtifactStore, digits: Artifact) -> Artifact:
    """The mixture of the digits and the bars, in `store`."""
    return run_stage(MixDatasets(), MixDatasetsConfig(), {"digits": digits, "bars": write_bars(store)}, store=store)
