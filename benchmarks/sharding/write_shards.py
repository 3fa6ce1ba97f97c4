"""MB/s from samples in memory to shards on disk: our tar writer against its peers.

    pip install -e '.[bench]'
    python benchmarks/sharding/write_shards.py                  # all peers that are installed, 7 rounds
    python benchmarks/sharding/write_shards.py --peers tarfile ShardWriter --folder /mnt/fast

All writers get the same samples: an image (random bytes of the size of a JPEG), JSON and a caption, 1,000 per shard.
`ours` is the tar writer alone; `ours, hashed` also computes each image's SHA-256 and writes the index, as a shard's
task does. LitData and MDSWriter write their own formats, in this process and without compression. The rounds
alternate, each into an empty folder; medians are printed. A round ends when the last file is closed, so it measures
the writer and the page cache, not the disk.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import io
import os
import platform
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset

from pipeline.sharding.format.index import SampleIndex, SampleRow, content_hash
from pipeline.sharding.writing.tar_writer import TarWriter

PER_SHARD = 1000
Sample = tuple[str, bytes, bytes, bytes]  # key, image, JSON, caption


def samples_in_memory(count: int, image_bytes: int) -> list[Sample]:
    """Samples of random bytes; images have 0.5 to 1.5 times `image_bytes`."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(image_bytes // 2, image_bytes * 3 // 2, count)
    notes = b'{"key":"%s","label":"goldfish","width":400,"height":357,"source":"bench","extra":"' + b"x" * 300 + b'"}'
    return [
        (
            f"goldfish-{number:08d}",
            rng.bytes(int(size)),
            notes % b"goldfish",
            b"a photo of a goldfish, number %d" % number,
        )
        for number, size in enumerate(sizes)
    ]


def ours(samples: list[Sample], folder: Path) -> None:
    with TarWriter(folder, PER_SHARD) as tars:
        for key, image, notes, caption in samples:
            tars.add("train", key, [("jpg", image), ("json", notes), ("txt", caption)])


def ours_hashed(samples: list[Sample], folder: Path) -> None:
    rows = []
    with TarWriter(folder, PER_SHARD) as tars:
        for key, image, notes, caption in samples:
            where = tars.add("train", key, [("jpg", image), ("json", notes), ("txt", caption)])
            hashed = content_hash(image)
            rows.append(
                SampleRow(
                    key=key,
                    shard=where.shard,
                    offset=where.offset,
                    length=where.length,
                    label=0,
                    captions=(caption.decode(),),
                    width=400,
                    height=357,
                    content_hash=hashed,
                    split=0,
                    group=0,
                    node=-1,
                    source="bench",
                )
            )
    SampleIndex.build(rows, shard_names=tars.shard_names, label_names=["goldfish"]).write(folder)


def shard_writer(samples: list[Sample], folder: Path) -> None:
    pattern = str(folder / "train-%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=PER_SHARD, maxsize=1 << 40, encoder=False, verbose=0) as writer:
        for key, image, notes, caption in samples:
            writer.write({"__key__": key, "jpg": image, "json": notes, "txt": caption})


def with_tarfile(samples: list[Sample], folder: Path) -> None:
    for first in range(0, len(samples), PER_SHARD):
        with tarfile.open(folder / f"train-{first // PER_SHARD:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, *members in samples[first : first + PER_SHARD]:
                for extension, data in zip(("jpg", "json", "txt"), members, strict=True):
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def mds_writer(samples: list[Sample], folder: Path) -> None:
    from streaming import MDSWriter

    columns = {"key": "str", "jpg": "bytes", "json": "bytes", "txt": "bytes"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=PER_SHARD * 100_000) as writer:
        for key, image, notes, caption in samples:
            writer.write({"key": key, "jpg": image, "json": notes, "txt": caption})


def lit_data(samples: list[Sample], folder: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_size=PER_SHARD)
    for number, (key, image, notes, caption) in enumerate(samples):
        writer.add_item(number, {"key": key, "jpg": image, "json": notes, "txt": caption})
    writer.done()


PEERS: dict[str, tuple[Callable[[list[Sample], Path], None], str | None]] = {
    "ours": (ours, None),
    "ours, hashed": (ours_hashed, None),
    "tarfile": (with_tarfile, None),
    "ShardWriter": (shard_writer, "webdataset"),
    "MDSWriter": (mds_writer, "mosaicml-streaming"),
    "LitData": (lit_data, "litdata"),
}


def installed(package: str | None) -> str | None:
    """A package's version; "" for no package (None), None if it is not installed."""
    if package is None:
        return ""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def seconds(write: Callable[[list[Sample], Path], None], samples: list[Sample], parent: Path) -> float:
    folder = Path(tempfile.mkdtemp(dir=parent))
    gc.collect()
    try:
        started = time.perf_counter()
        write(samples, folder)
        return time.perf_counter() - started
    finally:
        shutil.rmtree(folder)
        os.sync()  # so that no writer pays for the dirty pages of another


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--image-bytes", type=int, default=91_000, help="mean size of an image")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's folder for temporary files")
    parser.add_argument("--peers", nargs="+", choices=[*PEERS], default=[*PEERS])
    arguments = parser.parse_args()

    samples = samples_in_memory(arguments.samples, arguments.image_bytes)
    megabytes = sum(len(member) for _, *members in samples for member in members) / 1e6
    peers = {name: PEERS[name][0] for name in arguments.peers if installed(PEERS[name][1]) is not None}
    for name in set(arguments.peers) - set(peers):
        print(f"{name}: not installed")
    rates: dict[str, list[float]] = {name: [] for name in peers}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as parent:
        for round in range(arguments.rounds + 1):
            for name, write in peers.items():
                rate = megabytes / seconds(write, samples, Path(parent))
                if round:  # the first round warms up
                    rates[name].append(rate)

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{len(samples):,} samples, {megabytes:,.0f} MB, {arguments.rounds} rounds; medians, MB/s (least to most)")
    base = statistics.median(rates["ShardWriter"]) if "ShardWriter" in rates else None
    for name, found in sorted(rates.items(), key=lambda entry: -statistics.median(entry[1])):
        median = statistics.median(found)
        times = f"   {median / base:4.2f} x ShardWriter" if base else ""
        version = installed(PEERS[name][1])
        spread = f"({min(found):,.0f} to {max(found):,.0f})"
        print(f"{name + ' ' + version if version else name:26} {median:8,.0f}  {spread}{times}")


if __name__ == "__main__":
    main()
