"""MB a second from JPEG files to shards: the stage shard-dataset against its peers, in one run.

    pip install -e '.[bench]'
    python benchmarks/sharding/write_shards.py                  # all peers that are installed, 7 rounds
    python benchmarks/sharding/write_shards.py --peers tarfile ShardWriter --folder /mnt/fast

All write the same samples, an image with JSON and a caption, 1,000 to a shard, from a folder of files in the page
cache. `shard-dataset` is the whole stage: it decodes each image to check it, hashes it, plans the split, writes tars,
index and data card, and hashes the tars when it commits. `shard-dataset, writing` is the part of that run that its
peers do too, and a little more: it reads the images from the chunks, compares their SHA-256, and writes the tars, the
index and the list of items. The peers check nothing. LitData and MDSWriter write their own formats, in this process and
without compression. The rounds alternate, each into an empty folder; medians are printed. A round ends when the last
file is closed: what is measured is the writer and the page cache, not the disk.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import io
import json
import os
import platform
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from pipeline.artifacts import ArtifactStore
from pipeline.config import parse_config
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.stage import ShardDataset
from pipeline.stage import run_stage

PER_SHARD = 1000
LABELS = 10
Sample = tuple[str, bytes, bytes, bytes]  # key, image, JSON, caption
Seconds = dict[str, float]


def write_images(folder: Path, count: int) -> list[Path]:
    """FOLDER/LABEL/NUMBER.jpg: noise of 400 x 357 pixels, 65 kB each."""
    rng = np.random.default_rng(0)
    paths = [folder / str(number % LABELS) / f"{number:06d}.jpg" for number in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (357, 400, 3), dtype=np.uint8)).save(path, quality=55)
    return paths


def samples(images: Sequence[Path]) -> Iterator[Sample]:
    """The sample that the peers write for each file."""
    for path in images:
        label = path.parent.name
        notes = json.dumps({"key": path.stem, "label": label, "width": 400, "height": 357}).encode()
        yield path.stem, path.read_bytes(), notes, f"noise of class {label}".encode()


def ours(images: Sequence[Path], folder: Path) -> Seconds:
    """Seconds of the whole stage, and of its writing: from the progress note on planning to that on the data card."""
    given = {
        "source": {"kind": "image_folder", "folder": str(images[0].parents[1]), "caption": "noise of class {label}"},
        "split": {"val_share": 0, "test_share": 0},
        "samples_per_shard": PER_SHARD,
    }
    config = parse_config(ShardingConfig, given, "benchmark").resolved()
    reached: dict[str, float] = {}

    def progress(*, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        reached.setdefault(note, time.perf_counter())

    started = time.perf_counter()
    run_stage(ShardDataset(), config, {}, store=ArtifactStore.open(str(folder)), progress=progress)
    writing = reached["data card and contact sheet"] - reached["planning the shards"]
    return {"shard-dataset": time.perf_counter() - started, "shard-dataset, writing": writing}


def shard_writer(images: Sequence[Path], folder: Path) -> None:
    pattern = str(folder / "train-%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=PER_SHARD, maxsize=1 << 40, encoder=False, verbose=0) as writer:
        for key, image, notes, caption in samples(images):
            writer.write({"__key__": key, "jpg": image, "json": notes, "txt": caption})


def with_tarfile(images: Sequence[Path], folder: Path) -> None:
    for first in range(0, len(images), PER_SHARD):
        with tarfile.open(folder / f"train-{first // PER_SHARD:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, *members in samples(images[first : first + PER_SHARD]):
                for extension, data in zip(("jpg", "json", "txt"), members, strict=True):
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def mds_writer(images: Sequence[Path], folder: Path) -> None:
    from streaming import MDSWriter

    columns = {"key": "str", "jpg": "bytes", "json": "bytes", "txt": "bytes"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=PER_SHARD * 100_000) as writer:
        for key, image, notes, caption in samples(images):
            writer.write({"key": key, "jpg": image, "json": notes, "txt": caption})


def lit_data(images: Sequence[Path], folder: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_size=PER_SHARD)
    for number, (key, image, notes, caption) in enumerate(samples(images)):
        writer.add_item(number, {"key": key, "jpg": image, "json": notes, "txt": caption})
    writer.done()


PEERS: dict[str, tuple[Callable[[Sequence[Path], Path], None], str | None]] = {
    "tarfile": (with_tarfile, None),
    "ShardWriter": (shard_writer, "webdataset"),
    "MDSWriter": (mds_writer, "mosaicml-streaming"),
    "LitData": (lit_data, "litdata"),
}


def installed_version(package: str | None) -> str | None:
    """A package's version; "" without a package (the standard library), None if it is not installed."""
    if package is None:
        return ""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def peer(name: str, images: Sequence[Path], folder: Path) -> Seconds:
    started = time.perf_counter()
    PEERS[name][0](images, folder)
    return {name: time.perf_counter() - started}


def in_empty_folder(write: Callable[[Path], Seconds], parent: Path) -> Seconds:
    folder = Path(tempfile.mkdtemp(dir=parent))
    gc.collect()
    try:
        return write(folder)
    finally:
        shutil.rmtree(folder)
        os.sync()  # so that no writer waits for the unwritten pages of another


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to write; default: the folder for temporary files")
    parser.add_argument("--peers", nargs="+", choices=[*PEERS], default=[*PEERS])
    arguments = parser.parse_args()

    names = [name for name in arguments.peers if installed_version(PEERS[name][1]) is not None]
    for name in set(arguments.peers) - set(names):
        print(f"{name}: not installed")
    took: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as parent:
        images = write_images(Path(parent) / "images", arguments.samples)
        megabytes = sum(path.stat().st_size for path in images) / 1e6
        writers: list[Callable[[Path], Seconds]] = [
            partial(ours, images),
            *(partial(peer, name, images) for name in names),
        ]
        for round in range(arguments.rounds + 1):
            for write in writers:
                for name, once in in_empty_folder(write, Path(parent)).items():
                    took.setdefault(name, [])
                    if round:  # the first round warms up
                        took[name].append(once)

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{len(images):,} images, {megabytes:,.0f} MB, {arguments.rounds} rounds; medians, MB/s (lowest to highest)")
    base = statistics.median(took["ShardWriter"]) if "ShardWriter" in took else None
    for name, seconds in sorted(took.items(), key=lambda entry: statistics.median(entry[1])):
        median = statistics.median(seconds)
        times = f"   {base / median:4.2f} x ShardWriter" if base else ""
        version = installed_version(PEERS[name][1]) if name in PEERS else ""
        spread = f"({megabytes / max(seconds):,.0f} to {megabytes / min(seconds):,.0f})"
        print(f"{name + ' ' + version if version else name:26} {megabytes / median:8,.0f}  {spread}{times}")


if __name__ == "__main__":
    main()
