"""Checkpoints are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.storage import Storage, open_storage
from pipeline.storage.local import LocalStorage
from pipeline.training.checkpoint import Checkpoint, Checkpoints


def checkpoint(step: int) -> Checkpoint:
    tensors = {"model": {"weight": torch.full((3,), float(step))}, "optimizer": {"state": {0: {"step": step}}}}
    return Checkpoint(step, tensors, {"policy": {"version": step}, "rows": [], "seconds": 1.5})


def test_the_newest_two_are_kept_and_come_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(LocalStorage(tmp_path), "work/here")
    assert checkpoints.newest() is None
    for step in (5, 10, 15):
        checkpoints.save(checkpoint(step))
    assert sorted(path.name for path in (tmp_path / "work/here").glob("step-*.pt")) == [
        "step-000000010.pt",
        "step-000000015.pt",
    ]
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 15
    assert newest.notes["policy"] == {"version": 15}
    assert torch.equal(newest.tensors["model"]["weight"], torch.full((3,), 15.0))


@pytest.mark.parametrize("damage", ["cut", "changed", "no tensors", "no json", "half a json"])
def test_a_torn_checkpoint_is_skipped(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(LocalStorage(tmp_path), "here")
    checkpoints.save(checkpoint(5))
    checkpoints.save(checkpoint(10))
    tensors, notes = tmp_path / "here/step-000000010.pt", tmp_path / "here/step-000000010.json"
    data = tensors.read_bytes()
    match damage:
        case "cut":
            tensors.write_bytes(data[: len(data) // 2])
        case "changed":
            tensors.write_bytes(data[:-200] + bytes(200))
        case "no tensors":
            tensors.unlink()
        case "no json":
            notes.unlink()
        case "half a json":
            notes.write_bytes(notes.read_bytes()[:20])
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 5


def test_tensors_need_no_pickled_code(tmp_path: Path) -> None:
    Checkpoints(LocalStorage(tmp_path), "here").save(checkpoint(5))
    assert torch.load(tmp_path / "here/step-000000005.pt", weights_only=True)["optimizer"]["state"][0]["step"] == 5


@pytest.mark.servers
def test_checkpoints_work_the_same_on_s3(s3_url: str) -> None:
    storage: Storage = open_storage(s3_url)
    checkpoints = Checkpoints(storage, "work/train/x/scratch/checkpoints")
    for step in (5, 10, 15):
        checkpoints.save(checkpoint(step))
    newest = Checkpoints(open_storage(s3_url), "work/train/x/scratch/checkpoints").newest()
    assert newest is not None
    assert newest.step == 15
    assert len(list(storage.list("work"))) == 4
