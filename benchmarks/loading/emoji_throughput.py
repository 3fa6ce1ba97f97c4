"""Images per second and CPU time per image: our loader against ImageFolder and webdataset, on the same images.

    python benchmarks/loading/emoji_throughput.py --store .tutelage --shards shard-dataset/KEY

All produce uint8 batches of random crops with colour augmentation, with the same number of workers: threads for
ours, processes for the others. The rounds alternate; the medians are printed. CPU time includes the
worker processes. A round is one pass over the training split from new workers; its first batch,
which includes their start, is excluded from images/s and included in CPU time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import webdataset
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.loader import build_loader
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.index import SampleIndex

AUGMENT = AugmentConfig(flip=0.5)


def ours(artifact: Artifact, size: int, batch: int, workers: int) -> Iterator[torch.Tensor]:
    """Tutelage: tar index, decoding threads, counter-based random parameters, colours per batch."""
    index = SampleIndex.open(artifact)
    rows = index.rows("train")
    loader = build_loader(
        LoaderConfig(augment=AUGMENT, threads=workers),
        SampleReader(artifact, index),
        index,
        Shuffled(rows, batch, seed=0),
        image_size=size,
        seed=0,
        samples=len(rows),
    )
    for step in loader.batches(0, len(rows) // batch):
        yield step.images


def transform(size: int) -> Callable[..., torch.Tensor]:
    """The same augmentation with torchvision's transforms."""
    return v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(size, scale=(AUGMENT.crop_min_area, AUGMENT.crop_max_area), antialias=True),
            v2.RandomHorizontalFlip(AUGMENT.flip),
            v2.ColorJitter(AUGMENT.brightness, AUGMENT.contrast, AUGMENT.saturation),
        ]
    )


def one_thread(_: int) -> None:
    """Initialises a DataLoader's worker with one thread, since its processes share the cores."""
    torch.set_num_threads(1)


def image_folder(folder: Path, size: int, batch: int, workers: int) -> Iterator[torch.Tensor]:
    """torchvision's ImageFolder and DataLoader."""
    data = ImageFolder(str(folder), transform(size))
    loader = DataLoader(data, batch, shuffle=True, drop_last=True, num_workers=workers, worker_init_fn=one_thread)
    for images, _ in loader:
        yield images


def web_dataset(shards: list[str], size: int, batch: int, workers: int) -> Iterator[torch.Tensor]:
    """webdataset over the same tars."""
    data = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False)
        .shuffle(1000)
        .decode("pilrgb")
        .to_tuple("png")
        .map_tuple(transform(size))
    )
    for (images,) in DataLoader(data, batch, drop_last=True, num_workers=workers, worker_init_fn=one_thread):
        yield images


def unpack(artifact: Artifact, folder: Path) -> None:
    """Writes the training split as files, one folder per label."""
    index = SampleIndex.open(artifact)
    reader = SampleReader(artifact, index)
    for id in index.rows("train").tolist():
        path = folder / str(index.labels[id]) / f"{index.key(id)}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(reader.read(id))


def cpu_seconds() -> float:
    """CPU time of this process and of its ended children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measure(batches: Iterator[torch.Tensor]) -> tuple[float, float]:
    """Images per second after the first batch, and CPU milliseconds per image."""
    cpu_start = cpu_seconds()
    count = len(next(batches))
    started, first = time.perf_counter(), count
    for images in batches:
        count += len(images)
    elapsed = time.perf_counter() - started
    del batches
    return (count - first) / elapsed, 1000 * (cpu_seconds() - cpu_start) / count


def main() -> None:
    """Runs the rounds and prints one line per loader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="artifact store")
    parser.add_argument("--shards", required=True, help="STAGE/KEY of an artifact of PNG images")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    artifact = ArtifactStore.open(options.store).resolve(options.shards)
    shards = [str(artifact.path(name)) for name in artifact.files if name.startswith("shards/train-")]
    with tempfile.TemporaryDirectory() as name:
        unpack(artifact, Path(name))
        sizes = (options.size, options.batch, options.workers)
        loaders: dict[str, Callable[[], Iterator[torch.Tensor]]] = {
            "tutelage": partial(ours, artifact, *sizes),
            "ImageFolder + DataLoader": partial(image_folder, Path(name), *sizes),
            "webdataset + DataLoader": partial(web_dataset, shards, *sizes),
        }
        results: dict[str, list[tuple[float, float]]] = {label: [] for label in loaders}
        for _ in range(options.rounds):
            for label, load in loaders.items():
                results[label].append(measure(load()))
    medians = {
        label: [statistics.median(column) for column in zip(*rows, strict=True)] for label, rows in results.items()
    }
    own_rate = medians["tutelage"][0]
    for label, (rate, cpu) in medians.items():
        print(f"{label:28} {rate:7.0f} images/s  {cpu:6.2f} ms CPU per image  ours is {own_rate / rate:.1f}x")


if __name__ == "__main__":
    main()
