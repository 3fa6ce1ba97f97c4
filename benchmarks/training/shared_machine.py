"""Images per second of whole trainings on a machine that other processes share, by number of workers and threads.

    python benchmarks/training/shared_machine.py
    python benchmarks/training/shared_machine.py --busy 0 1 --rounds 2 --runs "1 worker, all cores" "a worker a core"

Each training is the stage train-teacher: resnet_small at 64 pixels in batches of 256, fed by the loader from shards,
with the loop on Ray Train workers. Beside it, `--busy` processes use a core each without pause. The rate is that of
training.json: over all steps, without the start of the workers, evaluation and checkpoints. Trainings of all rows
alternate; medians over the rounds are printed, with the lowest and highest, and their ratio to the best quiet median.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.machine import whole_cores
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.stage import ShardDataset
from pipeline.stage import run_stage
from pipeline.training import ray_train
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import TrainTeacher

SIZE = 64
BATCH = 256
CLASSES = 10
RUNS: dict[str, dict[str, Any]] = {
    "1 worker, all cores": {"runner": {"workers": 1}},
    "a worker a core": {"runner": {"workers": whole_cores(), "cpus_per_worker": 1}},
    "a worker a core, sync": {
        "runner": {"workers": whole_cores(), "cpus_per_worker": 1},
        "training": {"sync_batch_norm": True},
    },
    "1 worker, 1 core": {"runner": {"workers": 1, "cpus_per_worker": 1}},
}
# A process that wants a core all the time, as `yes` does, and ends with its pipe.
BUSY = (
    "import sys, threading, os\nthreading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()\nwhile 1: pass"
)


def write_images(folder: Path, count: int) -> Path:
    """Writes `count` JPEGs of `SIZE` pixels, one folder a class: smooth random colours, which compress as photos do."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        file = folder / f"class-{number % CLASSES}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file, quality=90)
    return folder


def shard(folder: Path, store: ArtifactStore) -> Artifact:
    given = {"source": {"kind": "image_folder", "folder": str(folder)}, "split": {"val_share": 0, "test_share": 0}}
    return run_stage(ShardDataset(), parse_config(ShardingConfig, given, "images").resolved(), {}, store=store)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.communicate()


def train(store: ArtifactStore, shards: Artifact, name: str, seed: int, steps: int) -> dict[str, Any]:
    """The content of training.json of one training."""
    run = RUNS[name]
    training = {"steps": steps, "epochs": None, "global_batch": BATCH, "evaluate_every_epochs": 0, "seed": seed}
    config = ClassificationConfig.model_validate(
        {
            "model": {"name": "resnet_small"},
            "image_size": SIZE,
            "training": training | run.get("training", {}),
            "runner": {"tracking": False} | run.get("runner", {}),
        }
    )
    return dict(run_stage(TrainTeacher(), config, {"shards": shards}, store=store).summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 4], help="numbers of busy processes")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS)[:3])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        store = ArtifactStore.open(f"{name}/store")
        shards = shard(write_images(Path(name) / "images", options.images), store)
        train(store, shards, options.runs[0], 10**6, 2)  # Starts Ray, and reads what later trainings find in memory.
        for round_number in range(options.rounds):
            for busy in options.busy:
                for number, run in enumerate(options.runs):
                    seed = 1000 * round_number + 10 * busy + number
                    with busy_processes(busy):
                        summary = train(store, shards, run, seed, options.steps)
                    rates.setdefault((run, busy), []).append(summary["images_per_s"])
                    shown = f"{summary['world']} workers, {summary['images_per_s']:.0f} images/s"
                    print(f"  {run}, beside {busy}: {shown}", file=sys.stderr, flush=True)
        ray_train.shutdown()
    print(f"{platform.machine()}, {os.cpu_count()} cores; torch {torch.__version__}; {options.rounds} rounds")
    quiet = [statistics.median(runs) for (_, busy), runs in rates.items() if busy == min(options.busy)]
    for (run, busy), runs in sorted(rates.items(), key=lambda item: (item[0][1], item[0][0])):
        median = statistics.median(runs)
        print(
            f"beside {busy}  {run:26} {median:7.0f} images/s ({min(runs):.0f} to {max(runs):.0f})  "
            f"{median / max(quiet):.2f} of the best quiet rate"
        )


if __name__ == "__main__":
    main()
