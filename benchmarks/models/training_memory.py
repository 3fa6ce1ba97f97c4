"""Memory of a training process on the CPU: the fixed part, per parameter and per image of the batch.

    python benchmarks/models/training_memory.py
    python benchmarks/models/training_memory.py --models resnet50 --size 224
    python benchmarks/models/training_memory.py --checkpointing     # with training.gradient_checkpointing

For each model, two new processes run two steps (forward, loss, backward, AdamW) in float32, one with batches of 4
images, one of 12; the memory of a process is its largest resident set. The difference is the memory of eight images.
The fixed part is the rest, without the 16 bytes per parameter of weights, gradients and AdamW's two moments: Python,
torch and the model's other buffers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from multiprocessing.connection import Connection

import torch
from torch.nn.functional import cross_entropy

from model_defs import create_model
from pipeline.training.gradient_checkpointing import checkpoint_blocks

MODELS = ("efficientnet_lite0", "resnet18", "resnet50")
SMALL, LARGE = 4, 12
BYTES_PER_PARAMETER = 16  # float32: weight, gradient, two moments


def peak(name: str, size: int, batch: int, checkpointing: bool, answer: Connection) -> None:
    """Sends (parameters, bytes of the largest resident set)."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=10)
    if checkpointing:
        checkpoint_blocks(model)
    optimizer = torch.optim.AdamW(model.parameters())
    labels = torch.zeros(batch, dtype=torch.int64)
    for _ in range(2):
        output = model(torch.zeros(batch, 3, size, size))
        cross_entropy(output, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    answer.send((sum(w.numel() for w in model.parameters()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def measure(name: str, size: int, batch: int, checkpointing: bool) -> tuple[int, int]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=peak, args=(name, size, batch, checkpointing, theirs))
    process.start()
    theirs.close()
    found: tuple[int, int] = ours.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[*MODELS])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--checkpointing", action="store_true")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, float32, {arguments.size} pixels; MB")
    print(f"{'model':24}{'parameters':>14}{'x 16 bytes':>12}{'per image':>12}{'fixed':>8}")
    for name in arguments.models:
        parameters, small = measure(name, arguments.size, SMALL, arguments.checkpointing)
        _, large = measure(name, arguments.size, LARGE, arguments.checkpointing)
        image = (large - small) / (LARGE - SMALL) / 1e6
        states = parameters * BYTES_PER_PARAMETER / 1e6
        print(f"{name:24}{parameters:>14,}{states:>12,.0f}{image:>12,.0f}{small / 1e6 - SMALL * image - states:>8,.0f}")


if __name__ == "__main__":
    main()
