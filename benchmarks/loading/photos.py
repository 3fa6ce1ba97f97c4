"""Photographs for the loading benchmarks: noisy crops of scikit-learn's two, as JPEGs, in the layout of each peer."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.stage import ShardDataset
from pipeline.stage import run_stage

WIDTH, HEIGHT, QUALITY = 400, 357, 90
CLASSES = 10


def photograph(number: int) -> bytes:
    """A JPEG of 400 x 357 pixels, 45 kB on average; the bytes depend on the number only."""
    rng = np.random.default_rng(number)
    whole = load_sample_image(("china.jpg", "flower.jpg")[number % 2])
    top = rng.integers(0, whole.shape[0] - HEIGHT + 1)
    left = rng.integers(0, whole.shape[1] - WIDTH + 1)
    crop = whole[top : top + HEIGHT, left : left + WIDTH]
    noisy = np.clip(crop + rng.normal(0, 4, crop.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def write_image_folder(folder: Path, count: int) -> list[Path]:
    """Writes FOLDER/CLASS/NUMBER.jpg; returns the paths."""
    paths = []
    for number in range(count):
        path = folder / f"{number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(number))
        paths.append(path)
    return paths


def write_shards(store: ArtifactStore, images: list[Path], samples_per_shard: int = 500) -> Artifact:
    """The same files as a shards artifact, all of them for training: the input of our loader and of webdataset."""
    given = {
        "source": {"kind": "image_folder", "folder": str(images[0].parents[1]), "caption": "a photograph of {label}"},
        "split": {"val_share": 0, "test_share": 0},
        "samples_per_shard": samples_per_shard,
    }
    config = parse_config(ShardingConfig, given, "photos").resolved()
    return run_stage(ShardDataset(), config, {}, store=store)
