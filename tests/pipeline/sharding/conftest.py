"""Pictures, folders of them and a store: what the tests of sharding work on."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.sharding.stage import ShardDataset, ShardingConfig
from pipeline.stage import run_stage

Picture = Callable[..., bytes]


@pytest.fixture(scope="session")
def picture() -> Picture:
    """picture(seed, kind="PNG", mode="RGB", size=(12, 10)): an encoded image of noise, the same for a seed."""

    def draw(
        seed: int, kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (12, 10), **options: Any
    ) -> bytes:
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise, "RGBA").convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()

    return draw


@pytest.fixture
def image_folder(tmp_path: Path, picture: Picture) -> Callable[[Mapping[str, int]], Path]:
    """image_folder({"cat": 12, "dog": 9}): a folder with so many different PNG and JPEG files a class."""

    def make(counts: Mapping[str, int]) -> Path:
        root = tmp_path / "pets"
        for place, (label, count) in enumerate(counts.items()):
            (root / label).mkdir(parents=True)
            for number in range(count):
                kind, suffix = (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"))[number % 3]
                (root / label / f"{number:03d}.{suffix}").write_bytes(picture(1000 * place + number, kind))
        return root

    return make


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path / "store"))


@pytest.fixture
def shard(store: ArtifactStore) -> Callable[..., Artifact]:
    """shard(source={...}, split={...}, ...): the shards artifact of a config, as a flow would make it."""

    def make(into: ArtifactStore = store, **values: Any) -> Artifact:
        config = parse_config(ShardingConfig, values, "test")
        config.check(into)
        return run_stage(ShardDataset(), config.resolved(), {}, store=into)

    return make
