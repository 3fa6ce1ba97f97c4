"""Joined columns beside the samples: the right rows on any number of workers, from any step, in any part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.artifacts import ArtifactStore
from pipeline.loading.batch import Batch
from pipeline.loading.loader import Loader, build_loader
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.policies import row_runs
from pipeline.loading.policies.row_runs import RowRuns
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.joined_columns import JoinedColumns
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.sharding.joining.stage import JoinColumns
from pipeline.stage import run_stage
from pipeline.training.batching import split


@pytest.fixture(scope="module")
def columns(shards: Any, tmp_path_factory: pytest.TempPathFactory) -> JoinedColumns:
    """score = id / 2 and vector = (id, -id) of each sample, and a text that does not come with batches."""
    folder: Path = tmp_path_factory.mktemp("columns")
    lines = [
        f'{{"key": "{shards.index.key(id)}", "score": {id / 2}, "vector": [{id}, {-id}], "text": "t"}}\n'
        for id in reversed(range(len(shards.index)))
    ]
    (folder / "new.jsonl").write_text("".join(lines))
    store = ArtifactStore.open(str(folder / "store"))
    config = JoinColumnsConfig(source=str(folder / "new.jsonl")).resolved()
    artifact = run_stage(JoinColumns(), config, {"shards": shards.artifact}, store=store)
    return JoinedColumns.open(artifact, shards.index)


def loader_of(shards: Any, columns: JoinedColumns, **changed: Any) -> Loader:
    policy = Shuffled(shards.index.rows("train"), 14, seed=1)
    options: dict[str, Any] = {"image_size": 16, "augment": None, "seed": 5, **changed}
    return Loader(SampleReader(shards.artifact, shards.index), shards.index, policy, columns=columns, **options)


def assert_right_rows(batch: Batch) -> None:
    ids = batch.ids
    assert set(batch.columns) == {"score", "vector"}
    assert torch.equal(batch.columns["score"], ids.float() / 2)
    assert torch.equal(batch.columns["vector"], torch.stack([ids, -ids], dim=1))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_batches_of_any_number_of_workers_carry_the_right_rows(shards: Any, columns: JoinedColumns, world: int) -> None:
    whole = list(loader_of(shards, columns).batches(0, 6))
    parts = [list(loader_of(shards, columns, rank=rank, world=world).batches(0, 6)) for rank in range(world)]
    for step, expected in enumerate(whole):
        for part in parts:
            assert_right_rows(part[step])
        for name in ("score", "vector"):
            joined = torch.cat([part[step].columns[name] for part in parts])
            assert torch.equal(joined, expected.columns[name])


def test_a_loader_that_starts_later_gives_the_same_rows(shards: Any, columns: JoinedColumns) -> None:
    whole = list(loader_of(shards, columns).batches(0, 9))
    for batch, expected in zip(loader_of(shards, columns).batches(4, 9), whole[4:], strict=True):
        assert torch.equal(batch.columns["vector"], expected.columns["vector"])


def test_columns_stay_with_their_samples_in_copies_and_moves(shards: Any, columns: JoinedColumns) -> None:
    for batch in build_loader(
        LoaderConfig(copies=2),
        SampleReader(shards.artifact, shards.index),
        shards.index,
        Shuffled(shards.index.rows("train"), 8, seed=1),
        image_size=16,
        seed=0,
        samples=60,
        columns=columns,
    ).batches(0, 2):
        assert_right_rows(batch)
        for part in split(batch, 3):
            assert_right_rows(part)
        assert batch.to("meta").columns["score"].device.type == "meta"


def test_without_columns_batches_have_none(shards: Any) -> None:
    policy = Shuffled(shards.index.rows("train"), 14, seed=1)
    reader = SampleReader(shards.artifact, shards.index)
    loader = Loader(reader, shards.index, policy, image_size=16, augment=None, seed=5)
    assert next(loader.batches(0, 1)).columns == {}


@pytest.mark.parametrize("seed", range(5))
def test_narrowed_runs_hold_the_ids_that_meet_the_condition(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_runs, "_SCAN_ROWS", 7)
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(rng.random(200) < 0.8)
    wanted = rng.random(200) < (0.1, 0.5, 0.95, 0.0, 1.0)[seed]
    filtered = RowRuns.of_rows(rows).filter(lambda first, last: wanted[first:last])
    expected = rows[wanted[rows]]
    np.testing.assert_array_equal(filtered.all(), expected)
    assert len(filtered.starts) == len(RowRuns.of_rows(expected).starts)
