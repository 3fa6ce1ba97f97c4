"""A training on damaged shards: goes on without the samples, says which, and stops where there are too many."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import DamagedError
from pipeline.sharding.format.index import SampleIndex
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.interruption import StoppedError
from pipeline.training.reporter import NullReporter
from pipeline.training.stage import ClassificationRecipe, TrainTeacher
from pipeline.training.worker import CheckpointLocation, train_recipe
from tests.forked import Forked

BuildConfig = Callable[..., ClassificationConfig]


def alter(digits: Artifact, *ids: int) -> Path:
    """Damages samples of the first shard; the whole one lies beside it."""
    index = SampleIndex.open(digits)
    path = digits.path(index.shard_names[0])
    shutil.copy(path, path.with_suffix(".whole"))
    with path.open("r+b") as file:
        for id in ids:
            assert index.shards[id] == 0
            file.seek(int(index.offsets[id]) + 30)
            file.write(b"damaged")
    return path


def test_damaged_samples_are_named_in_the_artifact(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    alter(digits, 7, 50)
    config = small_config(steps=10, loader={"max_damaged_share": 0.01})
    artifact = run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    lines = [json.loads(line) for line in artifact.read("quarantine.jsonl").decode().splitlines()]
    assert sorted(line["key"] for line in lines) == ["digit007", "digit050"]
    assert json.loads(artifact.read("training.json"))["damaged_samples"] == 2
    assert "2 damaged samples left out" in artifact.summary["headline"]
    rows = [json.loads(line) for line in artifact.read("metrics.jsonl").decode().splitlines()]
    assert [row["train/damaged"] for row in rows if "train/damaged" in row][-1] == 2.0


def test_a_training_on_whole_shards_says_nothing_of_damage(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    artifact = run_stage(TrainTeacher(), small_config(steps=2), {"shards": digits}, store=store)
    assert "quarantine.jsonl" not in artifact.files
    assert "damaged_samples" not in artifact.summary
    assert "train/damaged" not in artifact.read("metrics.jsonl").decode()


@pytest.mark.parametrize("loader", [{}, {"damaged": "stop", "max_damaged_share": 1.0}])
def test_too_many_or_any_where_none_may_be_stop_the_training(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, loader: dict[str, Any]
) -> None:
    alter(digits, 7)
    with pytest.raises(DamagedError, match="sample digit007 at byte"):
        run_stage(TrainTeacher(), small_config(steps=10, loader=loader), {"shards": digits}, store=store)


def test_a_damaged_validation_sample_stops_the_training(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    index = SampleIndex.open(digits)
    with digits.path(index.shard_names[int(index.shards[280])]).open("r+b") as file:
        file.seek(int(index.offsets[280]))
        file.write(b"damaged")
    config = small_config(steps=2, loader={"max_damaged_share": 1.0})
    with pytest.raises(DamagedError, match="sample digit280"):
        run_stage(TrainTeacher(), config, {"shards": digits}, store=store)


def test_what_was_found_before_a_stop_is_still_told_after_it(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    class StopAfterAnEpoch(NullReporter):
        steps = 0

        def stop_requested(self) -> bool:
            self.steps += 1
            return self.steps == 9

    path = alter(digits, 7)
    config = small_config(steps=12, loader={"max_damaged_share": 0.01})
    recipe = ClassificationRecipe(config, store.storage.url, digits.name)
    location = CheckpointLocation(store.storage.url, "work/one")
    with pytest.raises(StoppedError):
        train_recipe(recipe, torch.device("cpu"), 0, 1, location, StopAfterAnEpoch())
    path.with_suffix(".whole").replace(path)
    run_info = train_recipe(recipe, torch.device("cpu"), 0, 1, location, NullReporter())
    assert run_info["damaged_samples"] == 1
    last = location.open().newest()
    assert last is not None
    assert [line["key"] for line in last.notes["quarantine"]] == ["digit007"]


_RANK = """
import sys
import torch
import torch.distributed as dist
from pipeline.errors import DamagedError
from pipeline.loading.quarantine import DamagedSampleError, Quarantine
from pipeline.training.damage import exchange_damaged
from pipeline.training.worker import _sum_over_ranks

rank, meeting = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
quarantine = Quarantine(100, 0.03)
said = [exchange_damaged(quarantine, 2, torch.device("cpu"))]
quarantine.add(DamagedSampleError(5, "a.tar", "five", 0, "wrong"), 3 + rank)
if rank:
    quarantine.add(DamagedSampleError(6, "a.tar", "six", 0, "wrong"), 1)
said.append(exchange_damaged(quarantine, 2, torch.device("cpu")))
if rank:  # the other rank has nothing to report
    quarantine.add(DamagedSampleError(7, "a.tar", "seven", 0, "wrong"), 8)
said.append(exchange_damaged(quarantine, 2, torch.device("cpu")))
print(said, [(line["sample"], line["step"]) for line in quarantine.lines()])
few = Quarantine(100, 0.01)
few.add(DamagedSampleError(10 + rank, "a.tar", f"of rank {rank}", 0, "wrong"), 1)
try:
    exchange_damaged(few, 2, torch.device("cpu"))
except DamagedError as error:
    print(str(error).split(",")[0])
print("lost", _sum_over_ranks(1 + 2 * rank, 2, torch.device("cpu")))
dist.destroy_process_group()
"""


def test_workers_hear_of_each_others_damage_and_stop_together(tmp_path: Path) -> None:
    ranks = [Forked(_RANK, str(rank), str(tmp_path / "meeting")) for rank in range(2)]
    for rank in ranks:
        said, stopped, lost = rank.communicate(timeout=60).splitlines()
        assert said == "[{}, {'train/damaged': 2.0}, {'train/damaged': 3.0}] [(6, 1), (5, 3), (7, 8)]"
        assert stopped == "2 of 100 training samples are damaged"
        assert lost == "lost 4"
