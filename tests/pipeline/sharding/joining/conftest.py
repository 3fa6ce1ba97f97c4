"""Indexes without images: columns are joined by key, and the tars are never opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.sharding.format.index import SCHEMA, SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.sharding.joining.stage import JoinColumns
from pipeline.stage import run_stage


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path / "store"))


@pytest.fixture
def commit_index(store: ArtifactStore, tmp_path: Path) -> Callable[..., Artifact]:
    """commit_index(keys): a shards artifact that contains only an index of these keys."""

    def make(keys: Sequence[str] | pa.Array, name: str = "0123456789abcdef0123") -> Artifact:
        texts = pa.array(keys, pa.large_string())
        rows = len(texts)
        columns: dict[str, Any] = {
            "key": texts,
            "content_hash": texts,
            "captions": pa.LargeListArray.from_arrays(
                pa.array(np.zeros(rows + 1, np.int64)), pa.array([], pa.large_string())
            ),
            "source": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int16)), pa.array(["us"])),
        }
        arrays = [
            columns.get(field.name) if field.name in columns else pa.array(np.zeros(rows, field.type.to_pandas_dtype()))
            for field in SCHEMA
        ]
        schema = SCHEMA.with_metadata({"shards": '["shards/a.tar"]', "labels": "[]", "taxonomy": "[]"})
        folder = tmp_path / f"new-{name}"
        folder.mkdir()
        SampleIndex(pa.Table.from_arrays(arrays, schema=schema)).write(folder)
        return store.commit("shard-dataset", name, folder, config={}, inputs={}, summary={}, seconds=0, origin={})

    return make


@pytest.fixture
def shards(commit_index: Callable[..., Artifact]) -> Artifact:
    """Six samples: a0 to a5."""
    return commit_index([f"a{number}" for number in range(6)])


@pytest.fixture
def join(store: ArtifactStore) -> Callable[..., JoinedColumns]:
    """join(shards, source, ...): the joined columns, as a flow would build them."""

    def make(shards: Artifact, source: Path | str, **values: Any) -> JoinedColumns:
        config = JoinColumnsConfig(source=str(source), **values)
        config.check()
        artifact = run_stage(JoinColumns(), config.resolved(), {"shards": shards}, store=store)
        return JoinedColumns.open(artifact, SampleIndex.open(shards))

    return make
