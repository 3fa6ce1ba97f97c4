"""Photographs for the loading benchmarks: noisy crops of scikit-learn's two, as JPEGs, in the layout of each peer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.sharding.format.index import SampleIndex, SampleRow, content_hash
from pipeline.sharding.writing.tar_writer import TarWriter

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
    """The same files as a committed shards artifact, the input of our loader and of webdataset."""
    folder = store.local / "new"
    rows = []
    with TarWriter(folder, samples_per_shard) as tar:
        for number, path in enumerate(images):
            data = path.read_bytes()
            label = int(path.parent.name)
            meta = json.dumps({"label": label}).encode()
            place = tar.add("train", path.stem, [("jpg", data), ("cls", str(label).encode()), ("json", meta)])
            rows.append(
                SampleRow(
                    key=path.stem,
                    shard=place.shard,
                    offset=place.offset,
                    length=place.length,
                    label=label,
                    captions=(f"a photograph of class {label}",),
                    width=WIDTH,
                    height=HEIGHT,
                    content_hash=content_hash(data),
                    split=0,
                    group=number,
                    node=-1,
                    source="photographs",
                )
            )
    index = SampleIndex.build(rows, shard_names=tar.shard_names, label_names=[str(k) for k in range(CLASSES)])
    index.write(folder)
    return store.commit("shard-dataset", "0" * 20, folder, config={}, inputs={}, summary={}, seconds=0.0, origin={})
