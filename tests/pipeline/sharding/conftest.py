"""Pictures, image folders and a store for the tests of sharding."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.counter_rng import text_hash
from pipeline.loading.reader import SampleReader
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.deltas.delta_base import find_base
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.stage import ShardDataset, check_sharding
from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.split import split_draw
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
    """image_folder({"cat": 12, "dog": 9}): a folder with that many different PNG and JPEG files per class."""

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
    """shard(source={...}, split={...}, ...): the shards artifact of a config, as a flow would build it."""

    def make(into: ArtifactStore = store, **values: Any) -> Artifact:
        config = parse_config(ShardingConfig, values, "test")
        check_sharding(config, into)
        return run_stage(ShardDataset(), config.resolved(), {}, store=into)

    return make


@pytest.fixture(scope="session")
def add() -> Callable[..., Artifact]:
    """add(store, source or folder, base=None, ...): shards as a flow would build them, a delta if there is a base."""

    def make(
        store: ArtifactStore, source: Mapping[str, Any] | Path, base: Artifact | str | None = None, **values: Any
    ) -> Artifact:
        if isinstance(source, Path):
            source = {"kind": "image_folder", "folder": str(source), "caption": "a {label}"}
        named = base.name if isinstance(base, Artifact) else base
        given = {"source": source, "samples_per_shard": 7, "base": named, **values}
        config = parse_config(ShardingConfig, given, "test").resolved()
        check_sharding(config, store)
        found = find_base(config, store)
        return run_stage(ShardDataset(), config, {} if found is None else {"base": found.artifact}, store=store)

    return make


@pytest.fixture(scope="session")
def samples_of() -> Callable[[Artifact], dict[str, Any]]:
    """samples_of(artifact): by key, all fields of each sample except its location, and its image.

    Fails if an image cannot be read or does not match its hash, if equal images are in two splits, if rows are not
    grouped by split, or if items.parquet does not list every row once.
    """

    def known(artifact: Artifact) -> dict[str, Any]:
        index = SampleIndex.open(artifact)
        reader = SampleReader(artifact, index, verify="always")
        found, splits = {}, dict[str, set[int]]()
        for id in range(len(index)):
            row = index.row(id)
            found[row.key] = (
                *(reader.read(id), index.label_names[row.label] if row.label >= 0 else None, row.label, row.split),
                *(row.captions, row.group, row.node, row.family, row.width, row.height, row.content_hash),
            )
            splits.setdefault(row.content_hash, set()).add(row.split)
        reader.close()
        assert len(found) == len(index)
        assert all(len(of_image) == 1 for of_image in splits.values())
        assert (np.diff(index.splits) >= 0).all()
        rows = pq.read_table(artifact.path("items.parquet")).column("row").to_pylist()
        assert sorted(row for row in rows if row >= 0) == list(range(len(index)))
        return found

    return known


@pytest.fixture(scope="session")
def columns_of() -> Callable[..., PlanColumns]:
    """columns_of([{"group": "a", "label": 0, ...}, ...]): the columns of such images, as an intake would write them.

    Defaults: no label, no caption, a unique key and content, the content as group.
    """

    def number(texts: list[str]) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.array([text_hash(text) for text in texts], dtype=np.uint64)

    def make(images: list[dict[str, Any]]) -> PlanColumns:
        def of(name: str, default: Any = None) -> list[Any]:
            return [image.get(name, default) for image in images]

        contents = [str(image.get("content", f"content {row}")) for row, image in enumerate(images)]
        groups = [image.get("group") or content for image, content in zip(images, contents, strict=True)]
        families = sorted(set(of("family", "")))
        paths = sorted(set(of("path", ())))
        return PlanColumns(
            starts=np.array([0, len(images)], dtype=np.int64),
            hash_high=number(contents),
            hash_low=number([content + "/low" for content in contents]),
            difference_hash=np.array(of("look", 0), dtype=np.uint64),
            label=np.array(of("label", -1), dtype=np.int32),
            family=np.array([families.index(name) for name in of("family", "")], dtype=np.int16),
            node=np.array([paths.index(path) for path in of("path", ())], dtype=np.int32),
            given_split=np.array(
                [-1 if split is None else SPLITS.index(split) for split in of("given")], dtype=np.int8
            ),
            group_hash=number(groups),
            has_named_group=np.array([int(group is not None) for group in of("group")], dtype=np.int8),
            split_draw=np.array(
                [image.get("place", split_draw(group, 0)) for image, group in zip(images, groups, strict=True)],
                dtype=np.float64,
            ),
            captions_hash=number(of("caption", "")),
            key_hash=number([str(image.get("key", row)) for row, image in enumerate(images)]),
            sample_bytes=np.array(of("stored", 2048), dtype=np.int64),
            family_names=tuple(families),
            node_paths=tuple(paths),
        )

    return make
