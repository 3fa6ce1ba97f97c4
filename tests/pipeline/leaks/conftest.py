"""Shards with planted leaks: pictures like photographs, and common edits of them."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.sharding.format.index import SPLITS, SampleRow, content_hash
from tests.small_shards import SmallShards, index_of

Planted = tuple[str, str, bytes] | tuple[str, str, bytes, int]
Shard = Callable[..., Artifact]


@pytest.fixture(scope="session")
def photo() -> Callable[..., Image.Image]:
    """photo(7), photo(7, size=40): a smooth colour image, different for each number."""

    def draw(number: int, size: int = 160) -> Image.Image:
        rough = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        return Image.fromarray(rough).resize((size, size), Image.Resampling.BICUBIC)

    return draw


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """encode(image), encode(image, "JPEG", quality=70)."""

    def write(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return write


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path / "store"))


@pytest.fixture
def shard(store: ArtifactStore, tmp_path: Path) -> Shard:
    """shard([("train", "a", data), ("test", "b", data, 1)]): shards of (split, key, image, label); into=: a store.

    names={"a": "cats/IMG_1.jpg"}: the names of images in their source, as shard-dataset records them.
    """

    def build(
        images: Sequence[Planted], into: ArtifactStore = store, names: Mapping[str, str] | None = None
    ) -> Artifact:
        key = uuid.uuid4().hex[:20]
        folder = into.local / "new" / key
        folder.mkdir(parents=True)
        rows = []
        with SmallShards(folder, 100) as tars:
            for split, name, data, *label in sorted(images, key=lambda image: SPLITS.index(image[0])):
                location = tars.add(split, name, [("jpg" if data.startswith(b"\xff\xd8") else "png", data)])
                rows.append(
                    SampleRow(
                        name, location.shard, location.offset, location.length, label[0] if label else 0, (), 8, 8,
                        content_hash(data), SPLITS.index(split), 0, -1, "test",
                    )
                )  # fmt: skip
        index_of(rows, shard_names=tars.shard_names, label_names=("cat", "dog")).write(folder)
        if names is not None:
            known = [(names[row.key], number) for number, row in enumerate(rows) if row.key in names]
            columns = dict(zip(("name", "row"), map(list, zip(*known, strict=True)), strict=True))
            pq.write_table(pa.table(columns), folder / "items.parquet")
        return into.commit("shard-dataset", key, folder, config={}, inputs={}, summary={}, seconds=0.0, origin={})

    return build
