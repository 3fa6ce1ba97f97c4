"""Images per second from 400 x 357 JPEGs to batches of random 224-pixel crops: our loader against its peers.

    pip install -e '.[bench]'
    python benchmarks/loading/jpeg_throughput.py            # all peers, 5 rounds
    python benchmarks/loading/jpeg_throughput.py --peers ImageFolder DALI --images 2000

Every loader reads the same JPEG files (from its own container) in shuffled order, crops a random 25% to 100% of the
area, flips half of the images and produces batches of 128, with `--workers` workers: threads for ours and DALI,
processes for the others. All produce uint8 (the others by torchvision's v2 transforms), so that none spends time on
normalisation. The rounds alternate; medians are printed. A round is one pass over all images. Its first batch, which
includes the start of the workers, is excluded (except for ray.data, which works on all images at once). `processes` is
ours with its threads in separate processes; `curriculum` is ours with batches of whole groups of samples from anywhere
in the data, as a curriculum draws them.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import write_image_folder, write_shards
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.counter_rng import generator
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.loader import Loader, build_loader
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.policies.row_runs import RowRuns
from pipeline.loading.policies.streams import Streams
from pipeline.loading.reader import SampleReader
from pipeline.loading.remote_shards import RemoteMode
from pipeline.sharding.format.index import SampleIndex

SIZE, BATCH = 224, 128
AREA = (0.25, 1.0)
Batches = Iterator[torch.Tensor]


class SameGroupBatches:
    """Batches of 8 groups of 16 neighbours each, from anywhere in the data, like the nodes of a curriculum."""

    version = 0
    global_batch = BATCH

    def __init__(self, samples: int) -> None:
        self._groups = samples // 16

    def batch(self, step: int) -> np.ndarray:
        groups = generator(0, "groups", step).integers(0, self._groups, BATCH // 16)
        return (groups[:, None] * 16 + np.arange(16)).ravel()

    def epoch(self, step: int) -> int:
        return step * BATCH // (self._groups * 16)

    def ready_until(self) -> int | None:
        return None

    def state(self) -> dict[str, object]:
        return {}

    def load_state(self, state: dict[str, object]) -> None:
        pass


def our_loader(
    artifact: Artifact, workers: int, *, processes: int = 0, curriculum: bool = False, remote: RemoteMode = "parts"
) -> Loader:
    """Our loader with the crops and flips of its peers; `workers` is the number of threads in all its processes."""
    index = SampleIndex.open(artifact)
    augment = AugmentConfig(crop_min_area=AREA[0], flip=0.5, brightness=0, contrast=0, saturation=0)
    policy = SameGroupBatches(len(index)) if curriculum else Streams(RowRuns.of_rows(index.rows()), BATCH, 0)
    threads = workers // max(1, processes)
    return build_loader(
        LoaderConfig(augment=augment, threads=threads, processes=processes),
        SampleReader(artifact, index, remote=remote),
        index,
        policy,
        image_size=SIZE,
        seed=0,
        samples=len(index),
    )


def tutelage(artifact: Artifact, workers: int, images: int, *, processes: int = 0, curriculum: bool = False) -> Batches:
    loader = our_loader(artifact, workers, processes=processes, curriculum=curriculum)
    with closing(loader):
        for batch in loader.batches(0, images // BATCH):
            yield batch.images


def transform() -> Callable[..., torch.Tensor]:
    return v2.Compose(
        [v2.PILToTensor(), v2.RandomResizedCrop(SIZE, scale=AREA, antialias=True), v2.RandomHorizontalFlip(0.5)]
    )


def one_thread(_: int) -> None:
    torch.set_num_threads(1)


def data_loader(data: object, workers: int, **options: object) -> DataLoader:
    return DataLoader(data, BATCH, num_workers=workers, drop_last=True, worker_init_fn=one_thread, **options)  # type: ignore[arg-type]


def image_folder(folder: Path, workers: int) -> Batches:
    # PIL's crop and resize, the usual way with ImageFolder; on whole images they are faster here than torch's.
    crop = v2.Compose([v2.RandomResizedCrop(SIZE, scale=AREA), v2.RandomHorizontalFlip(0.5), v2.PILToTensor()])
    for images, _ in data_loader(ImageFolder(str(folder), crop), workers, shuffle=True):
        yield images


def web_dataset(shards: list[str], workers: int) -> Batches:
    import webdataset

    crop = v2.Compose([v2.RandomResizedCrop(SIZE, scale=AREA), v2.RandomHorizontalFlip(0.5), v2.PILToTensor()])
    data = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False)
        .shuffle(500)
        .decode("pil")
        .to_tuple("jpg", "json")
        .map_tuple(crop, lambda notes: int(notes["label"]))
    )
    for images, _ in data_loader(data, workers):
        yield images


def dali(folder: Path, workers: int) -> Batches:
    # As Any: its type stubs lack functions that its documentation uses.
    nvidia_dali: Any = importlib.import_module("nvidia.dali")
    fn, types = nvidia_dali.fn, nvidia_dali.types

    @nvidia_dali.pipeline_def(batch_size=BATCH, num_threads=workers, device_id=None)
    def pipeline() -> Any:
        jpegs, _ = fn.readers.file(file_root=str(folder), random_shuffle=True, name="reader")
        images = fn.decoders.image_random_crop(jpegs, device="cpu", output_type=types.RGB, random_area=list(AREA))
        images = fn.resize(images, device="cpu", resize_x=SIZE, resize_y=SIZE, antialias=True)
        return fn.flip(images, horizontal=fn.random.coin_flip(probability=0.5))

    built = pipeline()
    built.build()
    for _ in range(built.epoch_size("reader") // BATCH):
        yield torch.from_numpy(np.array(built.run()[0].as_tensor(), copy=False))


def litdata_item(path: str) -> dict[str, object]:
    return {"image": Path(path).read_bytes(), "label": int(Path(path).parent.name)}


def write_litdata(folder: Path, images: list[Path], output: Path) -> None:
    from litdata import optimize

    optimize(litdata_item, [str(path) for path in images], str(output), chunk_bytes="32MB", num_workers=1)


def litdata_pixels(item: dict[str, bytes]) -> torch.Tensor:
    from torchvision.io import decode_image

    torch.set_num_threads(1)
    crop = v2.Compose([v2.RandomResizedCrop(SIZE, scale=AREA, antialias=True), v2.RandomHorizontalFlip(0.5)])
    pixels: torch.Tensor = crop(decode_image(torch.frombuffer(bytearray(item["image"]), dtype=torch.uint8)))
    return pixels


def litdata(output: Path, workers: int) -> Batches:
    from litdata import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(str(output), shuffle=True, drop_last=True, transform=litdata_pixels)
    yield from StreamingDataLoader(data, batch_size=BATCH, num_workers=workers, drop_last=True)


def ray_data(shards: list[str], workers: int) -> Batches:
    import io

    import ray
    from PIL import Image

    crop = v2.Compose([v2.RandomResizedCrop(SIZE, scale=AREA), v2.RandomHorizontalFlip(0.5), v2.PILToTensor()])

    def row(sample: dict[str, Any]) -> dict[str, Any]:
        image = sample["jpg"]
        if isinstance(image, bytes):
            image = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
        return {"image": crop(Image.fromarray(image)).numpy()}

    if not ray.is_initialized():
        ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    data = ray.data.read_webdataset(shards).map(row)
    for batch in data.iter_torch_batches(batch_size=BATCH, drop_last=True, local_shuffle_buffer_size=500):
        yield batch["image"]


def rate(batches: Batches, *, whole: bool) -> float:
    """Images per second after the first batch, or with `whole` from the start."""
    started, count = time.perf_counter(), len(next(batches))
    first = 0 if whole else count
    if not whole:
        started = time.perf_counter()
    for images in batches:
        assert images.dtype == torch.uint8
        count += len(images)
    return (count - first) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("tutelage", "processes", "curriculum", "ImageFolder", "webdataset", "DALI", "LitData", "ray.data")
    parser.add_argument("--peers", nargs="+", choices=names[3:], default=names[3:])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--processes", type=int, help="over which ours spreads its threads; default: one per thread")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        images = write_image_folder(root / "folder", options.images)
        artifact = write_shards(ArtifactStore.open(str(root / "store")), images)
        shards = [str(artifact.path(file)) for file in artifact.files if file.endswith(".tar")]
        loaders: dict[str, Callable[[], Batches]] = {
            "tutelage": partial(tutelage, artifact, options.workers, options.images),
            "processes": partial(
                tutelage, artifact, options.workers, options.images, processes=options.processes or options.workers
            ),
            "curriculum": partial(tutelage, artifact, options.workers, options.images, curriculum=True),
            "ImageFolder": partial(image_folder, root / "folder", options.workers),
            "webdataset": partial(web_dataset, shards, options.workers),
            "DALI": partial(dali, root / "folder", options.workers),
            "LitData": partial(litdata, root / "litdata", options.workers),
            "ray.data": partial(ray_data, shards, options.workers),
        }
        loaders = {name: loader for name, loader in loaders.items() if name in {*names[:3], *options.peers}}
        if "LitData" in loaders:
            write_litdata(root, images, root / "litdata")
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(options.rounds):
            for name, load in loaders.items():
                rates[name].append(rate(load(), whole=name == "ray.data"))
    kilobytes = sum(artifact.files[f"shards/{Path(s).name}"].size for s in shards) / options.images / 1000
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {options.workers} workers;", end=" ")
    print(f"{options.images} JPEGs of {kilobytes:.0f} kB; torch {torch.__version__}; {options.rounds} rounds")
    for name in loaders:
        ratios = [own / peer for own, peer in zip(rates["tutelage"], rates[name], strict=True)]
        version = "" if name in names[:4] else importlib.metadata.version(PACKAGES[name])
        print(
            f"{name:12} {version:9} {statistics.median(rates[name]):6.0f} images/s   "
            f"ours is {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        )


PACKAGES = {"webdataset": "webdataset", "DALI": "nvidia-dali-cuda130", "LitData": "litdata", "ray.data": "ray"}


if __name__ == "__main__":
    main()
