"""Seconds to the first batch of a run that resumes at step 10,000, against reading and dropping all earlier samples.

    python benchmarks/loading/resume.py

Ours opens the index, plans, reads and decodes the batch of that step. The peer, webdataset in this process, reads all
earlier samples from the tars, drops them without decoding, and decodes one batch. It passes over the data set many
times and finds it in the page cache, which favours the peer. Rounds alternate; medians are printed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import webdataset
from jpeg_throughput import AREA, BATCH, SIZE, our_loader
from photos import write_image_folder, write_shards
from torchvision.transforms import v2

from pipeline.artifacts import Artifact, ArtifactStore


def tutelage(artifact: Artifact, step: int, workers: int) -> torch.Tensor:
    return next(our_loader(artifact, workers).batches(step, step + 1)).images


def read_and_drop(shards: list[str], step: int) -> torch.Tensor:
    crop = v2.Compose([v2.RandomResizedCrop(SIZE, scale=AREA), v2.RandomHorizontalFlip(0.5), v2.PILToTensor()])
    decode = webdataset.autodecode.Decoder([webdataset.autodecode.imagehandler("pil")])
    samples = iter(webdataset.WebDataset(shards, shardshuffle=len(shards)).repeat())
    wanted = itertools.islice(samples, step * BATCH, (step + 1) * BATCH)
    return torch.stack([crop(decode(sample)["jpg"]) for sample in wanted])


def seconds(first_batch: Callable[[], torch.Tensor]) -> float:
    started = time.perf_counter()
    assert len(first_batch()) == BATCH
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        images = write_image_folder(Path(name) / "folder", options.images)
        artifact = write_shards(ArtifactStore.open(f"{name}/store"), images)
        shards = [str(artifact.path(file)) for file in artifact.files if file.endswith(".tar")]
        readers = {
            "tutelage": partial(tutelage, artifact, options.step, options.workers),
            "webdataset, read and drop": partial(read_and_drop, shards, options.step),
        }
        times: dict[str, list[float]] = {reader: [] for reader in readers}
        for _ in range(options.rounds):
            for reader, first_batch in readers.items():
                times[reader].append(seconds(first_batch))
    print(f"to the first batch of {BATCH} at step {options.step:,}; {options.images:,} JPEGs; {options.rounds} rounds")
    for reader, runs in times.items():
        print(f"{reader:26} {statistics.median(runs):7.2f} s ({min(runs):.2f} to {max(runs):.2f})")


if __name__ == "__main__":
    main()
