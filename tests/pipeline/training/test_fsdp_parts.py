"""The parts of FSDP: units, evaluations with unequal numbers of batches, and checkpoints that fail on one rank."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from model_defs.registry import create_model
from pipeline.config import canonical_json
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.errors import InputError
from pipeline.storage import open_storage
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.fsdp.checkpoint_io import save_file
from pipeline.training.fsdp.units import units
from pipeline.training.training_config import TrainingConfig
from tests.ranks import run_ranks

# `sharded` has two blocks, and a parameter with fewer rows than there are ranks; `whole` is the same model.
SHARDED = """
import copy
from torch import nn
from pipeline.training.fsdp.fully_sharded import FullyShardedDataParallel
from pipeline.training.fsdp.units import units

torch.manual_seed(0)
Block = type("Block", (nn.Sequential,), {})
blocks = nn.Sequential(*(Block(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(2)))
whole = nn.Sequential(nn.Flatten(), blocks, nn.Linear(4, 1))
sharded = copy.deepcopy(whole)
assert [type(unit).__name__ for unit in units(whole)] == ["Block", "Block"]
parallel = FullyShardedDataParallel(torch.device("cpu"), rank)
assert parallel.average(sharded, None) is None
optimizer = torch.optim.AdamW(sharded.parameters(), lr=0.1, fused=True)
"""

EVALUATION = (
    SHARDED
    + """
def evaluate(model):
    outputs = [model(torch.full((2, 1, 2, 2), float(number))) for number in range(3 * rank)]
    model.finish()
    return outputs

with torch.no_grad():
    outputs = parallel.evaluation(evaluate)(sharded.eval())
    assert len(outputs) == 3 * rank
    for number, output in enumerate(outputs):
        torch.testing.assert_close(output, whole(torch.full((2, 1, 2, 2), float(number))))
held = sum(parameter.to_local().numel() for parameter in sharded.parameters())
total = sum(parameter.numel() for parameter in whole.parameters())
assert held < total, "the weights of a forward pass are kept"
"""
)

CHECKPOINTS = (
    SHARDED
    + """
import errno, signal
from pipeline.errors import WorkError
from pipeline.storage import open_storage
from pipeline.training.checkpoint import Checkpoint, Checkpoints
from pipeline.training.exported_weights import exported_part
from pipeline.training.fsdp.tensor_parts import load_weights

def no_space(source, path):
    raise OSError(errno.ENOSPC, "No space left on device")

(store,) = arguments
storage, full = open_storage(store), open_storage(store)
full.upload = no_space
checkpoints = Checkpoints(storage, "here")

def stored():
    return sorted(info.path for info in storage.list("here"))

def state(step):
    tensors = {"model": sharded.state_dict(), "optimizer": optimizer.state_dict()}
    return Checkpoint(step, tensors, {"step": step})

def save(step, checkpoints):
    writer = parallel.writer(checkpoints)
    writer.start(state(step))
    writer.wait()

for step in (1, 2):
    sharded(torch.full((2, 1, 2, 2), 1.0)).sum().backward()
    optimizer.step()
    save(step, checkpoints)
before = {name: value.full_tensor() for name, value in sharded.state_dict().items()}

# A disk that is full for one rank is an error of both, which the next start only logs; nothing of it is left.
writer = parallel.writer(Checkpoints(full, "here") if rank == 1 else checkpoints)
writer.start(state(3))
writer.start(state(3))
try:
    writer.wait()
except WorkError as error:
    told = "[Errno 28] No space left on device" if rank == 1 else "rank 1: [Errno 28] No space left on device"
    assert str(error).startswith(f"here: the last checkpoint cannot be written ({told})"), error
else:
    raise AssertionError("no error")
assert parallel.newest(checkpoints, sharded, None, optimizer).step == 2
assert not [path for path in stored() if "step-000000003" in path], stored()

dist.barrier()

# What a killed run did not complete is removed with the next checkpoint.
if rank == 0:
    storage.write("here/step-000000003.00001.safetensors", b"half")
save(4, checkpoints)
dist.barrier()  # rank 0 removes it
expected = [f"here/step-00000000{step}.{end}" for step in (2, 4) for end in (
    "00000.safetensors", "00001.safetensors", "json"
)]
assert stored() == expected, stored()
dist.barrier()

# Damage in the file of one rank: all ranks go back.
if rank == 1:
    path = "here/step-000000004.00001.safetensors"
    storage.write(path, storage.read(path)[:-1] + b"x")
dist.barrier()
found = parallel.newest(checkpoints, sharded, None, optimizer)
assert found.step == 2 and found.notes == {"step": 2}
for parameter in sharded.parameters():
    parameter.data.zero_()
load_weights(sharded, found.tensors["model"])
for name, value in sharded.state_dict().items():
    assert torch.equal(value.full_tensor(), before[name]), name
read = checkpoints.newest()
assert read.step == 2
for name, value in read.tensors["model"].items():
    assert torch.equal(value, before[name]), name
assert checkpoints.newest(exported_part).tensors.keys() == {"model"}

# Rank 1 is killed in the middle of a write; the parent reads what is left.
def killed(source, path):
    os.kill(os.getpid(), signal.SIGKILL)

if rank == 1:
    full.upload = killed
writer = parallel.writer(Checkpoints(full, "here") if rank == 1 else checkpoints)
writer.start(state(5))
try:
    writer.wait()
except (RuntimeError, WorkError):
    os._exit(0)
raise AssertionError("rank 1 is alive")
"""
)


@pytest.mark.parametrize(
    ("name", "kwargs", "block", "count"),
    [
        ("vit_micro", {"depth": 3}, "Block", 3),
        ("resnet_small", {"depths": [2, 1, 1, 1]}, "BasicBlock", 5),
        ("resnet50", {}, "Bottleneck", 16),
        ("densenet121", {}, "DenseBlock", 4),
        ("lenet5", {}, "", 0),
    ],
)
def test_the_units_are_the_blocks_of_the_net(name: str, kwargs: dict[str, object], block: str, count: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=10, **kwargs)
    found = [unit for unit in units(model) if type(unit).__name__ == block]
    assert len(found) == count, [type(unit).__name__ for unit in units(model)]
    inside = [module for unit in units(model) for module in unit.modules()]
    assert len(inside) == len(set(inside)), "a unit within a unit"


def test_a_large_layer_is_a_unit_and_a_small_one_is_not() -> None:
    large = nn.Linear(1024, 1024)
    assert units(nn.Sequential(nn.Linear(8, 1024), nn.ReLU(), large)) == [large]


def test_ranks_with_unequal_numbers_of_batches_evaluate_the_same_model(tmp_path: Path) -> None:
    run_ranks(tmp_path, EVALUATION, 2)


def _check_checkpoints(folder: Path, store: str) -> None:
    run_ranks(folder, CHECKPOINTS, 2, store, ends=(0, -signal.SIGKILL))
    left = Checkpoints(open_storage(store), "here").newest()
    assert left is not None
    assert left.step == 2


def test_a_checkpoint_that_one_rank_cannot_write_or_read_is_none_for_all(tmp_path: Path) -> None:
    _check_checkpoints(tmp_path, str(tmp_path / "store"))


def test_a_full_disk_is_an_error_of_the_operating_system(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        with pytest.raises(OSError, match=r"has 0 MiB free: .*No space left"):
            save_file({"weight": torch.zeros(100_000)}, tmp_path / "step-1")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.servers
def test_sharded_checkpoints_work_the_same_on_s3(tmp_path: Path, s3_url: str) -> None:
    _check_checkpoints(tmp_path, s3_url)


def test_what_fsdp_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"parallelism=fsdp cannot synchronise batch norm"):
        TrainingConfig(parallelism="fsdp", sync_batch_norm=True)
    with pytest.raises(ValueError, match=r"parallelism=fsdp: muon needs whole matrices; set optimizer to"):
        TrainingConfig.model_validate({"parallelism": "fsdp", "optimizer": {"kind": "muon"}})
    with pytest.raises(ValueError, match=r"training.parallelism: fsdp is for classifiers"):
        ContrastiveConfig.model_validate({"training": {"parallelism": "fsdp"}})
    training = TrainingConfig(global_batch=9, accumulation=3, parallelism="fsdp")
    training.check_workers(3)
    with pytest.raises(InputError, match=r"training\.parallelism: a worker has 2 rows .* set accumulation=2 or less"):
        training.check_workers(4)


def test_with_one_worker_the_training_says_that_nothing_is_divided() -> None:
    note = TrainingConfig(parallelism="fsdp").undivided_note(1)
    assert note is not None
    assert "no effect with one worker" in note
    assert TrainingConfig(parallelism="fsdp").undivided_note(2) is None
    assert TrainingConfig().undivided_note(1) is None


def test_the_key_of_a_training_does_not_depend_on_it() -> None:
    assert canonical_json(TrainingConfig(parallelism="fsdp")) == canonical_json(TrainingConfig())
