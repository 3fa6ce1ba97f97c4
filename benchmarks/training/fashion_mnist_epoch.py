"""Fashion-MNIST end to end: an epoch, and the time to an accuracy, beside torchvision, timm's loop and Lightning.

    pip install lightning timm                            # a missing peer is skipped
    tutelage run shard-dataset --preset fashion-mnist     # prints the folder SHARDS
    python benchmarks/training/fashion_mnist_epoch.py SHARDS
    python benchmarks/training/fashion_mnist_epoch.py SHARDS --busy 1
    python benchmarks/training/fashion_mnist_epoch.py SHARDS --model resnet_small --epochs 6 --rounds 1

Each training is a process of its own (fashion_mnist_contestants.py), from its start to the accuracy on the validation
images after each epoch. Equal in all: the model and its initial weights, batches of 256, the number of images, AdamW
(fused) with its groups, warm-up and cosine schedule, clipping, label smoothing, random resized crops and flips,
float32, torch's threads. Ours reads PNG files from shards, checks their hashes, and writes checkpoints; the peers have
torchvision's arrays in memory, two loader processes that persist, and write nothing. timm and Lightning run without
their loggers.

An epoch is the time between two evaluations' ends, the first epoch excluded. CPU is that of the process and its loader
processes. "all" is from the start of the process to the end of its last epoch. The table has medians, and the median
over the rounds of the ratio it / ours: above 1.00 ours is faster. Each training is also a line of JSON on stderr.
--busy N runs beside N processes that compute all the time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fashion_mnist_contestants import CONTESTANTS, MODELS, PACKAGES, read_lines

COLUMNS = ("epoch_cpu", "epoch_wall", "all_cpu", "all_wall", "reached")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Within the block, `count` processes compute."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(name: str, given: argparse.Namespace) -> dict[str, float]:
    """The seconds of a training, by COLUMNS, and its last accuracy."""
    script = Path(__file__).parent / "fashion_mnist_contestants.py"
    options = {"--model": given.model, "--epochs": given.epochs, "--threads": given.threads}
    command = [
        sys.executable,
        str(script),
        name,
        str(given.shards),
        *(str(x) for pair in options.items() for x in pair),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = list(read_lines(done.stdout))
    if done.returncode or len(lines) != given.epochs:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    first, last = lines[0], lines[-1]
    reached = [line["wall"] for line in lines if line["accuracy"] >= given.target]
    return {
        "epoch_cpu": (last["cpu"] - first["cpu"]) / (given.epochs - 1),
        "epoch_wall": (last["wall"] - first["wall"]) / (given.epochs - 1),
        "all_cpu": last["cpu"],
        "all_wall": last["wall"],
        "reached": reached[0] if reached else float("nan"),
        "accuracy": last["accuracy"],
    }


def table(measured: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """A row for each contestant: medians, and ratios to ours."""
    yield (
        "| training | epoch, CPU s | its ratio | epoch, wall s | its ratio | all, CPU s | its ratio | all, wall s "
        "| its ratio | to the accuracy, s | its ratio | last accuracy |"
    )
    yield "|---|" + "---:|" * 11
    for name, runs in measured.items():
        cells = []
        for column in COLUMNS:
            ratios = [run[column] / own[column] for run, own in zip(runs, measured["ours"], strict=True)]
            cells += [f"{statistics.median(run[column] for run in runs):.1f}", f"{statistics.median(ratios):.2f}"]
        accuracy = statistics.median(run["accuracy"] for run in runs)
        yield f"| {name} | {' | '.join(cells)} | {accuracy:.1%} |"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, help="folder of the artifact of shard-dataset")
    parser.add_argument("--model", choices=MODELS, default="lenet5")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each training, at least 2 (3)")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each contestant, in turn (3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch in the training process (1)")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="processes that compute beside it (0)")
    parser.add_argument("--target", type=float, default=0.91, help="validation accuracy to reach (0.91)")
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, help="these peers only")
    given = parser.parse_args(arguments)
    if given.epochs < 2 or given.rounds < 1:
        parser.error("--epochs: the first is not counted, so 2 at least; --rounds: 1 at least")
    if not (given.shards / "data_card.json").is_file():
        parser.error(f"{given.shards} is no folder of an artifact of shard-dataset")
    return given


def main() -> None:
    given = parse()
    names: list[Any] = ["ours"]
    for name in CONTESTANTS:
        package = PACKAGES.get(name)
        if name == "ours" or (given.only and name not in given.only):
            continue
        if package is not None and importlib.util.find_spec(package) is None:
            print(f"{name} is skipped: {package} is not installed")
            continue
        names.append(name)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with busy(given.busy):
        for turn in range(given.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                measured[name].append(measure(name, given))
                print(json.dumps({"training": name, **measured[name][-1]}), file=sys.stderr, flush=True)
    print(
        f"{given.model}, {given.epochs} epochs, {given.rounds} rounds, torch {torch.__version__}, threads of torch: "
        f"{given.threads}, busy processes beside: {given.busy}, accuracy to reach: {given.target:.0%}\n"
    )
    print("\n".join(table(measured)))


if __name__ == "__main__":
    main()
