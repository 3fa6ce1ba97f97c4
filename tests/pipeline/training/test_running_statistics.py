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
from pipeline.training.exported_weights import exported_per_class
from pipeline.training.reporter import NullReporter
from pipeline.training.stage import ClassificationRecipe
from pipeline.training.worker import CheckpointLocation, train_recipe

CPU = torch.device("cpu")
NET = {"name": "resnet_small", "kwargs": {"widths": [8, 16], "depths": [1, 1]}}

# Goes on from the checkpoint before the last in work/resumed, and trains with synchronised batch norm in work/synced.
# In the same processes, because starting one takes longer than these trainings.
AFTER = """
import shutil
from dataclasses import replace
from pathlib import Path

work = Path(store) / "work"
if rank == "0":
    shutil.copytree(work / "ranks", work / "resumed")
    for path in (work / "resumed").glob("step-000000002.*"):
        path.unlink()
dist.barrier()
train(recipe, CheckpointLocation(store, "work/resumed"))
training = recipe.training.model_copy(update={"sync_batch_norm": True})
synced = replace(recipe, config=recipe.config.model_copy(update={"training": training}))
train(synced, CheckpointLocation(store, "work/synced"))
"""


def newest(store: ArtifactStore, prefix: str) -> Checkpoint:
    checkpoint = CheckpointLocation(store.storage.url, prefix).open().newest()
    assert checkpoint is not None
    return checkpoint


def first_mean(checkpoint: Checkpoint) -> Any:
    return next(value for name, value in checkpoint.tensors["model"].items() if name.endswith("running_mean"))


def validation_loss(checkpoint: Checkpoint) -> float:
    return next(row["val/loss"] for row in reversed(checkpoint.notes["rows"]) if "val/loss" in row)


def test_two_ranks_export_what_they_measure_resume_to_the_same_bits_and_synced_end_where_one_ends(
    store: ArtifactStore,
    digits: Artifact,
    small_config: Callable[..., ClassificationConfig],
    train_ranks: Callable[..., CheckpointLocation],
) -> None:
    # 33 rows on 2 ranks are 16 and 17.
    sgd = {"kind": "sgd", "lr": 0.05}
    config = small_config(model=NET, steps=2, global_batch=33, checkpoint_every_steps=1, optimizer=sgd)
    recipe = ClassificationRecipe(config, store.storage.url, digits.name)
    train_ranks(store, config, 2, after=AFTER)
    train_recipe(recipe, CPU, 0, 1, CheckpointLocation(store.storage.url, "work/alone"), NullReporter())
    last, resumed, synced, alone = (newest(store, f"work/{name}") for name in ("ranks", "resumed", "synced", "alone"))
    assert [checkpoint.step for checkpoint in (last, resumed, synced, alone)] == [2] * 4

    objects = recipe.build(CPU, 0, 1)
    objects.model.load_state_dict(last.tensors["average"])
    assert objects.evaluate is not None
    with torch.no_grad():
        exported = objects.evaluate(objects.model.eval())
    assert validation_loss(last) == pytest.approx(exported["val/loss"], rel=1e-6)
    measured = next(row for row in reversed(last.notes["rows"]) if "val/loss" in row)
    for name in ("val/accuracy", "val/balanced_accuracy", "val/calibration_error"):
        assert measured[name] == pytest.approx(exported[name], rel=1e-9), name
    assert exported_per_class(last) == exported.per_class
    assert sum(exported.per_class["images"]) == 57

    for part in ("model", "average"):
        for name, value in last.tensors[part].items():
            assert torch.equal(resumed.tensors[part][name], value), name
        for name, value in alone.tensors[part].items():
            torch.testing.assert_close(synced.tensors[part][name], value, rtol=1e-4, atol=1e-5)
    assert validation_loss(synced) == pytest.approx(validation_loss(alone), rel=1e-5)

    # The first layer sees the same in step 0 on any number of ranks.
    for path in Path(store.local, "work").glob("*/step-000000002.*"):
        path.unlink()
    means = [first_mean(newest(store, f"work/{name}")) for name in ("ranks", "synced", "alone")]
    for mean in means[:2]:
        torch.testing.assert_close(mean, means[2], rtol=1e-5, atol=1e-6)
