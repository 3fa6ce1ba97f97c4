"""A training that is killed at 20 random moments ends in the bits of one that is not."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.storage.local import LocalStorage
from pipeline.training.checkpoint import Checkpoint, Checkpoints
from tests.forked import Forked

KILLS, STEPS = 20, 100
LONGEST_RUN = 30  # in moments; a step has about six

# A rank of a training with two micro-batches a step. It is killed at a moment, counted from its start: before a batch,
# in a micro-batch, in an evaluation, or around the write of a checkpoint's file, in the thread that writes.
_RANK = """
import itertools, os, signal, sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from pipeline.loading.batch import Batch
from pipeline.loading.part_times import PartTimes
from pipeline.storage.local import LocalStorage
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.fsdp.equal_passes import finish_passes
from pipeline.training.loop import fit
from pipeline.training.task import StepOutput, TrainingObjects
from pipeline.training.training_config import TrainingConfig

folder, parallelism, steps, rank, world, meeting, killed_at = sys.argv[1:]
rank, world, moments = int(rank), int(world), itertools.count(1)

def moment():
    if next(moments) == int(killed_at):
        os.kill(os.getpid(), signal.SIGKILL)

class Store(LocalStorage):
    def upload(self, source, path):
        moment()
        super().upload(source, path)
        moment()

    def write(self, path, data):
        moment()
        super().write(path, data)
        moment()

class Policy:
    global_batch, version = 8, 0

    def ready_until(self):
        return None

    def state(self):
        return {}

    def load_state(self, state):
        pass

class Source:
    policy, quarantine, times, lost_processes = Policy(), None, PartTimes(), 0

    def batches(self, start, stop):
        for step in range(start, stop):
            moment()
            rows = 8 // world
            ids = (torch.arange(8) + 8 * step)[rank * rows : (rank + 1) * rows] % 40
            images = (ids[:, None, None, None] * torch.tensor([3, 5, 7, 11]).view(1, 1, 2, 2) % 13).to(torch.uint8)
            yield Batch(images, ids, ids % 3, ids, None, step, 0, 8, first_row=rank * rows)

    def close(self):
        pass

class Regression:
    def training_step(self, model, batch):
        moment()
        off = (model(batch.images.float()).squeeze(1) - batch.labels).square()
        return StepOutput(off.mean())

def evaluate(model):
    outputs = []
    for number in range(2):
        moment()
        outputs.append(model(torch.full((4, 1, 2, 2), float(number))))
    finish_passes(model)
    total = sum(output.sum() for output in outputs).double()
    if world > 1:
        dist.all_reduce(total)
    return {"val/accuracy": float(total)}

if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
torch.manual_seed(0)
layers = nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)
objects = TrainingObjects(nn.Sequential(*layers), Regression(), Source(), epoch_samples=40, evaluate=evaluate)
training = TrainingConfig(
    steps=int(steps), global_batch=8, accumulation=2, precision="float32", parallelism=parallelism, ema_decay=0.9,
    clip_norm=1.0, log_every_steps=1, checkpoint_every_steps=2, checkpoint_every_s=1e6,
)
device = torch.device("cpu")
fit(objects, training, device=device, rank=rank, world=world, checkpoints=Checkpoints(Store(Path(folder)), "here"))
if world > 1:
    dist.barrier()
os._exit(0)
"""


def run(folder: Path, parallelism: str, world: int, killed: tuple[int, int] | None = None) -> list[int]:
    """Trains in one process for each rank until all or one has ended; returns the exit codes.

    Args:
        killed: a rank, and its moment.
    """
    meeting = folder / f"meeting-{time.monotonic_ns()}"
    ranks = []
    for number in range(world):
        moment = killed[1] if killed is not None and killed[0] == number else 0
        arguments = str(folder), parallelism, str(STEPS), str(number), str(world), str(meeting), str(moment)
        ranks.append(Forked(_RANK, *arguments, with_errors=True))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        codes = [rank.poll() for rank in ranks]
        if -signal.SIGKILL in codes or None not in codes:
            break
        time.sleep(0.01)
    for rank in ranks:
        rank.kill()  # a rank whose peer was killed waits for it, or has ended with an error
    return [rank.wait(timeout=30) for rank in ranks]


def ended(folder: Path) -> Checkpoint:
    found = Checkpoints(LocalStorage(folder), "here").newest()
    assert found is not None
    return found


def values(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The rows that do not depend on time."""
    timed = ("time/", "train/images_per_s", "train/data_wait")
    return [
        {name: value for name, value in row.items() if not name.startswith(timed)} for row in checkpoint.notes["rows"]
    ]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: entry for part, inner in value.items() for key, entry in flat(inner, f"{name}/{part}").items()}
    if isinstance(value, list | tuple):
        return flat(dict(enumerate(value)), name)
    return {name: value}


@pytest.mark.parametrize(("world", "parallelism"), [(1, "ddp"), (2, "ddp"), (2, "fsdp")])
def test_a_training_killed_at_20_random_moments_ends_in_the_same_bits(
    tmp_path: Path, world: int, parallelism: str
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    assert run(straight, parallelism, world) == [0] * world
    moments = random.Random(f"{world} {parallelism}")
    for _ in range(KILLS):
        victim = moments.randrange(world)
        codes = run(broken, parallelism, world, (victim, moments.randint(1, LONGEST_RUN)))
        assert codes[victim] == -signal.SIGKILL
    assert ended(broken).step < STEPS, "some kills came after the end"
    assert run(broken, parallelism, world) == [0] * world
    one, other = ended(straight), ended(broken)
    assert (one.step, other.step) == (STEPS, STEPS)
    assert values(one) == values(other)
    tensors, others = flat(one.tensors), flat(other.tensors)
    assert tensors.keys() == others.keys()
    assert len(tensors) > 20
    for name, tensor in tensors.items():
        same = torch.equal(tensor, others[name]) if isinstance(tensor, torch.Tensor) else tensor == others[name]
        assert same, name
