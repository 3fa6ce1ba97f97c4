"""What a checkpoint costs the steps beside it, and how soon a killed training makes its next step.

    python benchmarks/training/checkpoint_cost.py
    python benchmarks/training/checkpoint_cost.py --model vit_small --threads 2

One training writes a checkpoint every 2N steps. Its cost is the time of the N steps from there, with the copy of the
state and the thread that writes it, less that of the N steps that follow, in which nothing is written: the median over
the checkpoints, in wall time and in CPU time. The share is that of a minute, the default interval
(training.checkpoint_every_s). For comparison: torch.save of the same state by the step itself, and its share.

Then a process with the same training is killed (SIGKILL) between two checkpoints, and started again. Its first step is
timed from the start of the process: imports, model, reading and checking the checkpoint, the step. Batches are in
memory.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from resident_batches import Pair, ResidentSource

from model_defs import create_model
from pipeline.preprocessing import Preprocessing, per_channel
from pipeline.storage import open_storage
from pipeline.training.allocator import freed_memory_kept
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.classification import Classification
from pipeline.training.loop import fit
from pipeline.training.task import TrainingObjects
from pipeline.training.training_config import TrainingConfig

INTERVAL_S, SIDE, CLASSES = 60.0, 64, 100
PREFIX = "checkpoints"


class Steps:
    """Yields the same pair for each step, and remembers the clocks at each request."""

    def __init__(self, batch: int, announce: bool = False) -> None:
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (batch, 3, SIDE, SIDE), dtype=torch.uint8, generator=draw)
        self._pair = images, torch.randint(0, CLASSES, (batch,), generator=draw)
        self._announce = announce
        self.marks: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[tuple[int, Pair]]:
        number = 0
        while True:
            self.marks.append((time.perf_counter(), time.process_time()))
            if self._announce and number:
                print(json.dumps({"steps": number, "since_start": _age()}), flush=True)
            yield number, self._pair
            number += 1


def _age() -> float:
    """Seconds since this process was started."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def train(given: argparse.Namespace, folder: str, steps: Steps, total: int) -> TrainingObjects:
    """Trains to step `total`, with a checkpoint every 2N steps, or goes on from the newest."""
    torch.manual_seed(0)
    sized: dict[str, Any] = {} if given.model.startswith("resnet") else {"img_size": SIDE}
    model = create_model(given.model, num_classes=CLASSES, **sized).to(memory_format=torch.channels_last)
    training = TrainingConfig(
        steps=total,
        global_batch=given.batch,
        precision="float32",
        checkpoint_every_steps=2 * given.steps,
        checkpoint_every_s=1e6,
    )
    task = Classification(Preprocessing(SIDE, 3, per_channel(0.5, 3), per_channel(0.25, 3)))
    objects = TrainingObjects(model, task, ResidentSource(steps, given.batch, SIDE), epoch_samples=1_000_000)
    with freed_memory_kept():  # as a runner trains
        fit(objects, training, device=torch.device("cpu"), checkpoints=Checkpoints(open_storage(folder), PREFIX))
    return objects


def cost_of_a_checkpoint(given: argparse.Namespace) -> None:
    """Prints the table."""
    n, steps = given.steps, Steps(given.batch)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        train(given, folder, steps, 2 * n * (given.checkpoints + 1) + n)
        size = max(file.stat().st_size for file in (Path(folder) / PREFIX).glob("*.pt"))
        state = torch.load(max((Path(folder) / PREFIX).glob("*.pt")), weights_only=True, mmap=False)
        saves = []
        for _ in range(3):
            begin, worked = time.perf_counter(), time.process_time()
            torch.save(state, Path(folder) / "state.pt")
            saves.append((time.perf_counter() - begin, time.process_time() - worked))
    print(
        f"{given.model}, state {size / 1e6:,.0f} MB, batch {given.batch}, {SIDE} pixels, "
        f"{given.checkpoints} checkpoints, torch {torch.__version__}, {given.threads} threads\n"
    )
    print("| | step, ms | a checkpoint, s | share of a minute | torch.save in the step, s | share |")
    print("|---|---:|---:|---:|---:|---:|")
    for clock, name in enumerate(("wall", "CPU")):
        extra, plain = [], []
        for number in range(given.checkpoints):
            first = 2 * n * (number + 1) - 1  # a checkpoint starts at the end of the step before the next request
            with_writer = steps.marks[first + n][clock] - steps.marks[first][clock]
            without = steps.marks[first + 2 * n - 1][clock] - steps.marks[first + n][clock]
            extra.append(with_writer - without * n / (n - 1))
            plain.append(without / (n - 1))
        cost, saved = statistics.median(extra), statistics.median(save[clock] for save in saves)
        print(
            f"| {name} | {1000 * statistics.median(plain):.1f} | {cost:.2f} | {cost / INTERVAL_S:.2%} "
            f"| {saved:.2f} | {saved / INTERVAL_S:.2%} |"
        )


def resume_after_a_kill(given: argparse.Namespace, arguments: list[str]) -> None:
    """Prints when the first step of a training that was killed ended."""
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        command = [sys.executable, __file__, *arguments, "--child", folder]
        killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert killed.stdout is not None
        for line in killed.stdout:
            if json.loads(line)["steps"] >= 3 * given.steps:  # half an interval after the first checkpoint
                break
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        begin = time.perf_counter()
        again = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert again.stdout is not None
        first = json.loads(again.stdout.readline())
        first_s = time.perf_counter() - begin
        newest = Checkpoints(open_storage(folder), PREFIX).newest()
        again.kill()
        again.wait()
    print(
        f"\nkilled after step {3 * given.steps}, resumed from step {newest.step if newest else 0}: first step "
        f"{first_s:.1f} s after the start of the process ({first['since_start']:.1f} s by its own clock)"
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12, help="N, at least 4 (12)")
    parser.add_argument("--checkpoints", type=int, default=5, help="number that are measured (5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    parser.add_argument("--folder", type=Path, help="folder for the checkpoints (that for temporary files)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.steps < 4 or given.checkpoints < 1:
        parser.error("--steps: 4 at least, --checkpoints: 1 at least")
    return given


def main() -> None:
    given = parse()
    torch.set_num_threads(given.threads)
    if given.child:
        train(given, given.child, Steps(given.batch, announce=True), 1_000_000)
        return
    cost_of_a_checkpoint(given)
    resume_after_a_kill(given, sys.argv[1:])


if __name__ == "__main__":
    main()
