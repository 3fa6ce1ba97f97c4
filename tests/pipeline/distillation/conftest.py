"""A store with digits, untrained teachers for them, and configs of students with a training of one second."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.distillation.config import DistillationConfig
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing
from pipeline.sharding.format.index import SampleRow, content_hash
from tests.small_shards import SmallShards, index_of

DIGITS = tuple("0123456789")
SIDE = 8


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path / "store"))


@pytest.fixture
def shards(store: ArtifactStore) -> Artifact:
    """200 digits of 8 x 8 pixels, the last 50 for validation."""
    digits, folder, rows = load_digits(), store.local / "new", []
    with SmallShards(folder, samples_per_shard=100) as tar:
        for number in range(200):
            split = int(number >= 150)
            buffer = io.BytesIO()
            Image.fromarray((digits.images[number] * 15.9).astype(np.uint8)).save(buffer, "PNG")
            data = buffer.getvalue()
            member = tar.add(("train", "val")[split], f"digit{number:03d}", [("png", data)])
            rows.append(
                SampleRow(
                    f"digit{number:03d}", member.shard, member.offset, member.length, int(digits.target[number]), (),
                    SIDE, SIDE, content_hash(data), split, number, -1, "scan",
                )
            )  # fmt: skip
    index_of(rows, shard_names=tar.shard_names, label_names=DIGITS).write(folder)
    return store.commit("shard-dataset", "d19175", folder, config={}, inputs={}, summary={}, seconds=0, origin={})


@pytest.fixture
def build_teacher() -> Callable[..., Artifact]:
    """Builds an untrained LeNet for images of 32 pixels."""
    return _build_teacher


def _build_teacher(store: ArtifactStore, labels: tuple[str, ...] = DIGITS, channels: int = 1) -> Artifact:
    torch.manual_seed(7)
    kwargs = {"num_classes": len(labels), "in_chans": channels, "img_size": 32}
    folder = store.local / "teacher"
    ExportedModel.write(
        folder / "model",
        create_model("lenet5", **kwargs),
        kind="classifier",
        architecture="lenet5",
        kwargs=kwargs,
        preprocessing=Preprocessing(32, channels, (0.3,) * channels, (0.3,) * channels),
        labels=labels,
    )
    key = f"{abs(hash((labels, channels))):020d}"[:20]
    return store.commit("train-teacher", key, folder, config={}, inputs={}, summary={}, seconds=0, origin={})


@pytest.fixture
def config() -> Callable[..., DistillationConfig]:
    """Builds the config of a small student; keyword arguments replace its fields."""
    return _config


def _config(**changes: Any) -> DistillationConfig:
    values = {
        "model": {"name": "deit_micro_distilled", "kwargs": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2}},
        "image_size": SIDE,
        "channels": 1,
        "loader": {"augment": None},
        "training": {"steps": 120, "global_batch": 50, "optimizer": {"kind": "adamw", "lr": 0.003}},
        "runner": {"runner": "process", "tracking": False, "cpus_per_worker": 1},
    }
    return DistillationConfig.model_validate({**values, **changes})
