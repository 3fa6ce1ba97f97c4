"""Batch norm on two ranks: what is measured is what is exported, and the checkpoint of one rank is the state of all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.reporter import NullReporter
from pipeline.training.stage import ClassificationRecipe
from pipeline.training.worker import CheckpointLocation, train_recipe

CPU = torch.device("cpu")
BuildConfig = Callable[..., ClassificationConfig]
TrainRanks = Callable[[ArtifactStore, ClassificationConfig, int], CheckpointLocation]
NET = {"name": "resnet_small", "kwargs": {"widths": [8, 16], "depths": [1, 1]}}


def newest(location: CheckpointLocation) -> Checkpoint:
    checkpoint = location.open().newest()
    assert checkpoint is not None
    return checkpoint


def without_newest(store: ArtifactStore, location: CheckpointLocation) -> Checkpoint:
    """The checkpoint before the newest, which is removed."""
    for path in Path(store.local, location.prefix).glob(f"step-{newest(location).step:09d}.*"):
        path.unlink()
    return newest(location)


def first_mean(checkpoint: Checkpoint) -> Any:
    return next(value for name, value in checkpoint.tensors["model"].items() if name.endswith("running_mean"))


def train_alone(store: ArtifactStore, digits: Artifact, config: ClassificationConfig) -> CheckpointLocation:
    location = CheckpointLocation(store.storage.url, "work/alone")
    recipe = ClassificationRecipe(config, store.storage.url, digits.name)
    train_recipe(recipe, CPU, 0, 1, location, NullReporter())
    return location


def test_ranks_log_the_loss_of_the_exported_model_and_resume_to_the_same_bits(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, train_ranks: TrainRanks
) -> None:
    # 33 rows on 2 ranks are 16 and 17.
    config = small_config(model=NET, steps=2, global_batch=33, checkpoint_every_steps=1)
    location = train_ranks(store, config, 2)
    last = newest(location)
    objects = ClassificationRecipe(config, store.storage.url, digits.name).build(CPU, 0, 1)
    objects.model.load_state_dict(last.tensors["average"])
    assert objects.evaluate is not None
    with torch.no_grad():
        exported = objects.evaluate(objects.model.eval())
    logged = next(row["val/loss"] for row in reversed(last.notes["rows"]) if "val/loss" in row)
    assert logged == pytest.approx(exported["val/loss"], rel=1e-6)

    # The first layer sees the same in step 0 on any number of ranks.
    after_one_step = without_newest(store, location)
    alone = without_newest(store, train_alone(store, digits, config))
    assert after_one_step.step == alone.step == 1
    torch.testing.assert_close(first_mean(after_one_step), first_mean(alone), rtol=1e-5, atol=1e-6)

    resumed = newest(train_ranks(store, config, 2))
    assert resumed.step == last.step
    for part in ("model", "average"):
        for name, value in last.tensors[part].items():
            assert torch.equal(resumed.tensors[part][name], value), name
