"""FSDP: a training whose ranks each have a part of the model ends where DDP and one process end."""

from __future__ import annotations

import json
import shutil
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
from tests.ranks import run_ranks

BuildConfig = Callable[..., ClassificationConfig]
TrainRanks = Callable[..., CheckpointLocation]
CPU = torch.device("cpu")
SGD = {"kind": "sgd", "lr": 0.05}
VIT = {"name": "vit_micro", "kwargs": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2}}

# After the training in work/ranks, each rank trains again, in the same processes, because starting one takes longer.
_AFTER = """
import json, shutil
from pathlib import Path

rank, world = int(rank), int(world)

def changed(**training):
    config = recipe.config.model_dump(mode="json")
    config["training"] |= training
    return ClassificationRecipe(ClassificationConfig.model_validate(config), store, shards)

def at(name):
    return CheckpointLocation(store, f"work/{name}")

def go_on(recipe, trained, name):
    # From the checkpoint of step 2 of the training in work/trained.
    if rank == 0:
        shutil.copytree(f"{store}/work/{trained}", f"{store}/work/{name}")
        for path in Path(store, "work", name).glob("step-000000003.*"):
            path.unlink()
    dist.barrier()
    train(recipe, at(name))

ddp = {"parallelism": "ddp"}
"""
TWO_RANKS = (
    _AFTER
    + """
train(changed(**ddp), at("ddp"))
go_on(recipe, "ranks", "again")
go_on(changed(**ddp), "ranks", "to-ddp")
go_on(recipe, "ddp", "from-ddp")

# Only rank 0 is asked to stop.
from pipeline.training.interruption import StoppedError

class StopAfterStep2(NullReporter):
    steps = 0

    def stop_requested(self):
        assert rank == 0
        self.steps += 1
        return self.steps == 2

try:
    train_recipe(recipe, torch.device(device), rank, world, at("stopped"), StopAfterStep2())
except StoppedError as error:
    assert str(error).startswith("stopped at step 2 of 3")
else:
    raise AssertionError("not stopped")
train(recipe, at("stopped"))

# The last step again, from the checkpoint before it, which stays as it is.
from pipeline.training.replay import ReplayLocation, ReplayRecipe

def stored():
    return {path.name: path.stat().st_mtime_ns for path in Path(store, "work/ranks").iterdir() if path.is_file()}

before = stored()
replayed = train_recipe(
    ReplayRecipe(recipe, 1, 2, 2, 3, "work/ranks/bad_batches", store), torch.device(device), rank, world,
    ReplayLocation(store, "work/ranks", 2), NullReporter(),
)
assert stored() == before
logged = at("ranks").open().newest().notes["rows"]
(row,) = [row for row in logged if row["step"] == 3 and "train/loss" in row]
assert abs(replayed["loss"] / row["train/loss"] - 1) < 1e-6, (replayed["loss"], row)
assert replayed["gradient_norm"] == row["train/gradient_norm"]
"""
)
THREE_RANKS = (
    _AFTER
    + """
go_on(recipe, "two", "three")
go_on(recipe, "alone", "from-alone")
"""
)


def newest(store: ArtifactStore, name: str) -> Checkpoint:
    checkpoint = CheckpointLocation(store.storage.url, f"work/{name}").open().newest()
    assert checkpoint is not None
    return checkpoint


def numbers(checkpoint: Checkpoint, name: str) -> list[float]:
    return [row[name] for row in checkpoint.notes["rows"] if name in row]


def train_alone(store: ArtifactStore, digits: Artifact, config: ClassificationConfig, name: str) -> Checkpoint:
    recipe = ClassificationRecipe(config, store.storage.url, digits.name)
    train_recipe(recipe, CPU, 0, 1, CheckpointLocation(store.storage.url, f"work/{name}"), NullReporter())
    return newest(store, name)


def go_on(store: ArtifactStore, trained: str, name: str) -> None:
    """Prepares work/name to go on from the checkpoint of step 2 in work/trained."""
    shutil.copytree(store.local / "work" / trained, store.local / "work" / name)
    for path in (store.local / "work" / name).glob("step-000000003.*"):
        path.unlink()


def assert_near(one: Checkpoint, other: Checkpoint) -> None:
    assert one.step == other.step
    for name in ("train/loss", "train/gradient_norm", "val/loss", "val/accuracy"):
        assert numbers(other, name) == pytest.approx(numbers(one, name), rel=1e-6), name
    for part in ("model", "average"):
        for name, value in one.tensors[part].items():
            torch.testing.assert_close(other.tensors[part][name], value, rtol=1e-5, atol=1e-6)


def same_bits(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_bits(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_bits, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def test_fsdp_ends_where_ddp_and_one_process_end_and_goes_on_with_any_of_them_and_any_number_of_workers(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, train_ranks: TrainRanks
) -> None:
    # 33 rows on 2 ranks are 16 and 17, in two micro-batches; SGD, since Adam turns rounding into steps.
    shape = {"steps": 3, "global_batch": 33, "accumulation": 2, "optimizer": SGD, "model": VIT, "clip_norm": 0.5}
    shape |= {"log_every_steps": 1, "checkpoint_every_steps": 1}
    sharded = small_config(**shape, parallelism="fsdp")
    train_ranks(store, sharded, 2, after=TWO_RANKS)
    trained, again = newest(store, "ranks"), newest(store, "again")
    assert max(numbers(trained, "train/gradient_norm")) > 0.5, "nothing was clipped"
    assert same_bits(trained.tensors, again.tensors)
    assert same_bits(trained.tensors, newest(store, "stopped").tensors)
    assert again.notes["rows"][0] == trained.notes["rows"][0], "it did not go on, but began again"
    alone = train_alone(store, digits, small_config(**shape), "alone")
    go_on(store, "ranks", "to-alone")
    train_alone(store, digits, small_config(**shape), "to-alone")
    for name in ("ranks", "ddp", "to-ddp", "from-ddp", "to-alone"):
        assert_near(alone, newest(store, name))

    # train_ranks begins in work/ranks again.
    (store.local / "work" / "ranks").rename(store.local / "work" / "two")
    go_on(store, "two", "ranks")
    train_ranks(store, sharded, 3, after=THREE_RANKS)
    for name in ("ranks", "three", "from-alone"):
        assert_near(alone, newest(store, name))
    files = sorted(path.name for path in (store.local / "work" / "ranks").glob("step-*"))
    assert files == [
        *(f"step-000000002.0000{rank}.safetensors" for rank in range(2)),
        "step-000000002.json",
        *(f"step-000000003.0000{rank}.safetensors" for rank in range(3)),
        "step-000000003.json",
    ]


# Of each: the losses with FSDP and with DDP. The changes are of a training with SGD.
TOGETHER = {
    "float16": {"precision": "float16"},
    "bfloat16": {"precision": "bfloat16"},
    "gradient-checkpointing": {"gradient_checkpointing": True},
    "channels-last": {"channels_last": "yes"},
    "raw": {"export_weights": "raw", "accumulation": 3},
    "best": {"export_weights": "best"},
    "lamb": {"optimizer": {"kind": "lamb", "lr": 1e-3}},
    "rmsprop": {"optimizer": {"kind": "rmsprop", "lr": 1e-4}},
}
COMBINATIONS = (
    _AFTER
    + """
train(changed(**ddp), at("ddp"))
go_on(recipe, "ranks", "again")
for name, change in json.loads(TOGETHER).items():
    change = {"optimizer": {"kind": "sgd", "lr": 0.05}, "steps": 2, "patience": None, **change}
    train(changed(**change), at(f"{name}-fsdp"))
    train(changed(**change, **ddp), at(f"{name}-ddp"))
"""
)


def test_what_works_with_ddp_works_with_fsdp_to_the_same_losses(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, train_ranks: TrainRanks
) -> None:
    """Batch norm, Adam, rates of layers and early stopping; then each of TOGETHER."""
    # 61 images of validation: one rank has 31, the other 30. An evaluation follows each step, the best is the first.
    config = small_config(
        steps=3,
        global_batch=33,
        model={"name": "resnet_small", "kwargs": {"widths": [8, 16], "depths": [1, 1]}},
        optimizer={"kind": "adamw", "lr": 1e-3, "layer_decay": 0.7},
        patience=5,
        evaluate_every_epochs=0.1,
        log_every_steps=1,
        checkpoint_every_steps=1,
        parallelism="fsdp",
    )
    train_ranks(store, config, 2, after=COMBINATIONS.replace("TOGETHER", repr(json.dumps(TOGETHER))))
    trained, again, ddp = (newest(store, name) for name in ("ranks", "again", "ddp"))
    assert {"model", "optimizer", "average", "best"} == trained.tensors.keys()
    assert same_bits(trained.tensors, again.tensors)
    assert trained.notes["early_stopping"] == again.notes["early_stopping"] == ddp.notes["early_stopping"]
    assert numbers(trained, "val/loss") == pytest.approx(numbers(ddp, "val/loss"), rel=1e-4)
    for name, value in ddp.tensors["best"].items():
        torch.testing.assert_close(trained.tensors["best"][name], value, rtol=1e-3, atol=1e-4)
    for number, state in ddp.tensors["optimizer"]["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(trained.tensors["optimizer"]["state"][number][name], value, rtol=1e-3, atol=1e-4)
    for name in TOGETHER:
        one, other = newest(store, f"{name}-fsdp"), newest(store, f"{name}-ddp")
        rel = 1e-2 if name.endswith("16") else 1e-5
        for metric in ("train/loss", "train/gradient_norm", "val/loss"):
            assert numbers(one, metric) == pytest.approx(numbers(other, metric), rel=rel), (name, metric)
        assert one.notes.get("loss_scale") == other.notes.get("loss_scale"), name
        assert one.notes["exported"]["weights"] == other.notes["exported"]["weights"], name


COMPILED = """
from torch import nn
from pipeline.training.compilation import compile_model
from pipeline.training.fsdp.fully_sharded import FullyShardedDataParallel

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return x + nn.functional.gelu(self.layer(x))

def trained(change):
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block())
    change(model)
    FullyShardedDataParallel(torch.device("cpu"), rank).average(model, None)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
    for _ in range(3):
        loss = model(torch.ones(4, 8) * (rank + 1)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses

plain, compiled = trained(lambda model: None), trained(compile_model)
assert plain[0] > plain[2]
torch.testing.assert_close(torch.tensor(compiled), torch.tensor(plain), rtol=1e-5, atol=0)
"""


@pytest.mark.heavy
def test_compiled_blocks_are_divided_and_have_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    run_ranks(tmp_path, COMPILED, 2)
    assert any((tmp_path / "inductor").rglob("*.so"))
