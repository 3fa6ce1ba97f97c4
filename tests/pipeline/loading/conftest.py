"""A small shards artifact: 60 pictures of three labels, as PNG, JPEG and WebP, colour and grey."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.counter_rng import generator
from pipeline.loading import decode_processes
from pipeline.sharding.format.index import SampleIndex, SampleRow, content_hash
from tests.forked import fork_decoding_process
from tests.small_shards import SmallShards, index_of

SAMPLES = 60
_FORMATS = (("png", "PNG", {}), ("jpg", "JPEG", {"quality": 95}), ("webp", "WEBP", {"lossless": True}))


@dataclass(frozen=True)
class Shards:
    """The artifact, its index, and the source picture of each sample."""

    artifact: Artifact
    index: SampleIndex
    pictures: list[Image.Image]


def picture(number: int, size: int = 40) -> Image.Image:
    """Smooth noise in colour (every seventh in grey), so that no two pictures are alike in any region."""
    rough = generator(0, "picture", number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(rough).resize((size, size), Image.Resampling.BICUBIC)
    return image.convert("L") if number % 7 == 6 else image


def build_shards(store: ArtifactStore, folder: Path) -> Shards:
    """Writes and commits the artifact."""
    pictures = [picture(number) for number in range(SAMPLES)]
    rows = []
    with SmallShards(folder, samples_per_shard=25) as tar:
        for number, image in enumerate(pictures):
            extension, kind, options = _FORMATS[number % 3]
            buffer = io.BytesIO()
            image.save(buffer, kind, **options)
            member = tar.add("train", f"pic{number:03d}", [(extension, buffer.getvalue())])
            rows.append(
                SampleRow(
                    key=f"pic{number:03d}",
                    shard=member.shard,
                    offset=member.offset,
                    length=member.length,
                    label=0 if number < 40 else 1 if number < 55 else 2,
                    captions=tuple(f"picture {number}, caption {k}" for k in range(number % 4)),
                    width=image.width,
                    height=image.height,
                    content_hash=content_hash(buffer.getvalue()),
                    split=0,
                    group=number // 2,
                    node=-1,
                    family="test",
                )
            )
    index = index_of(rows, shard_names=tar.shard_names, label_names=("a", "b", "c"))
    index.write(folder)
    artifact = store.commit(
        "shard-dataset", "0123456789abcdef0123", folder, config={}, inputs={}, summary={}, seconds=0.0, origin={}
    )
    return Shards(artifact, SampleIndex.open(artifact), pictures)


@pytest.fixture
def forked_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts decoding processes within milliseconds."""
    monkeypatch.setattr(decode_processes, "_start_process", fork_decoding_process)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Shards in a local store; read only."""
    root = tmp_path_factory.mktemp("loading")
    store = ArtifactStore.open(str(root / "store"))
    return build_shards(store, root / "store" / "new")


@pytest.fixture
def own_shards(tmp_path: Path) -> Shards:
    """Shards in the test's own local store, which it may damage."""
    return build_shards(ArtifactStore.open(str(tmp_path / "store")), tmp_path / "store" / "new")


@pytest.fixture
def s3_shards(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shards:
    """Shards in a real S3 server."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return build_shards(ArtifactStore.open(s3_url), tmp_path / "new")
