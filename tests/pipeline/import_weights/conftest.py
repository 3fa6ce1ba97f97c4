"""A store with a small exported classifier and labelled drawings, and the folders of packages with weights."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing
from pipeline.sharding.format.index import SampleRow, content_hash
from tests.small_shards import SmallShards, index_of

LABELS = ("dark", "light", "striped")
SIDE = 32
NET = {"widths": [8], "depths": [1], "num_classes": 3, "in_chans": 3, "img_size": 16}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return ArtifactStore.open(str(tmp_path / "store"))


@pytest.fixture
def package_folder() -> Callable[[str], Path]:
    """The folder of an installed package."""

    def find(package: str) -> Path:
        spec = importlib.util.find_spec(package)
        assert spec is not None, f"{package} is not installed: make install-dev"
        assert spec.origin is not None
        return Path(spec.origin).parent

    return find


@pytest.fixture
def exported(tmp_path: Path) -> ExportedModel:
    """A classifier of three labels with random weights."""
    torch.manual_seed(1)
    return ExportedModel.write(
        tmp_path / "exported" / "model",
        create_model("resnet_small", **NET),
        kind="classifier",
        architecture="resnet_small",
        kwargs=NET,
        preprocessing=Preprocessing(16, 3, (0.5,) * 3, (0.25,) * 3),
        labels=LABELS,
    )


@pytest.fixture
def teacher(store: ArtifactStore, exported: ExportedModel) -> Artifact:
    """The classifier as an artifact."""
    key = "0123456789abcdef0123"
    return store.commit(
        "train-teacher", key, exported.folder.parent, config={}, inputs={}, summary={}, seconds=0, origin={}
    )


@pytest.fixture
def shards(store: ArtifactStore) -> Artifact:
    """24 training and 6 validation pictures of 32 pixels, with three labels."""
    folder, rows = store.local / "new", []
    with SmallShards(folder, samples_per_shard=100) as tar:
        for number in range(30):
            label, split = number % 3, int(number >= 24)
            pixels = np.random.default_rng(number).integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
            pixels[:: 1 if label == 1 else 4] += np.uint8(0 if label == 0 else 190)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            key = f"picture{number:02d}"
            member = tar.add(("train", "val")[split], key, [("png", buffer.getvalue())])
            rows.append(
                SampleRow(
                    key=key, shard=member.shard, offset=member.offset, length=member.length, label=label, captions=(),
                    width=SIDE, height=SIDE, content_hash=content_hash(buffer.getvalue()), split=split, group=number,
                    node=-1, family="us",
                )
            )  # fmt: skip
    index_of(rows, shard_names=tar.shard_names, label_names=LABELS).write(folder)
    key = "00000000000000d19175"
    return store.commit("shard-dataset", key, folder, config={}, inputs={}, summary={}, seconds=0, origin={})
