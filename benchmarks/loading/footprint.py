"""Disk and memory that shard-dataset needs: bytes per image of the artifact, of the work in progress, and of memory.

    python benchmarks/loading/footprint.py                   # 1,000 and 4,000 photographs
    python benchmarks/loading/footprint.py --images 500 2000

Each size is sharded in a new process, whose memory (proportional set size, with its children) and work folder are
measured five times a second. The difference between the two sizes, divided by the difference in images, is the cost of
an image; the rest is the fixed cost.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from photos import write_image_folder, write_shards

from pipeline.artifacts import ArtifactStore


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes, for a number of images.

    Attributes:
        source: the image files.
        tars, index, rest: the artifact: shards; index and list of items; cards, manifest and all else.
        work: the largest size of the work folder.
        memory: the largest memory of all processes of the run.
    """

    images: int
    source: int
    tars: int
    index: int
    rest: int
    work: int
    memory: int


def measure(count: int, folder: Path) -> Footprint:
    """Shards `count` photographs in a new process."""
    images = write_image_folder(folder / "images", count)
    store = folder / "store"
    process = multiprocessing.get_context("spawn").Process(target=shard, args=(store, images))
    process.start()
    work = memory = 0
    while process.is_alive():
        work = max(work, size_of(store / "work"))
        memory = max(memory, sum(map(proportional_set_size, process_tree(process.pid or 0))))
        time.sleep(0.2)
    process.join()
    if process.exitcode:
        raise SystemExit("shard-dataset failed")
    (artifact,) = (store / "artifacts" / "shard-dataset").iterdir()
    sizes = {path: path.stat().st_size for path in artifact.rglob("*") if path.is_file()}
    tars = sum(size for path, size in sizes.items() if path.suffix == ".tar")
    index = sum(size for path, size in sizes.items() if path.name.startswith(("index.", "items.")))
    source = sum(path.stat().st_size for path in images)
    return Footprint(count, source, tars, index, sum(sizes.values()) - tars - index, work, memory)


def shard(store: Path, images: list[Path]) -> None:
    write_shards(ArtifactStore.open(str(store)), images)


def size_of(folder: Path) -> int:
    """Bytes of the files below a folder; skips files that disappear meanwhile; a file with two links counts once."""
    sizes: dict[int, int] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.stat(os.path.join(root, name))
            except OSError:
                continue
            sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def process_tree(process: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield process
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from process_tree(int(child))
    except OSError:
        return


def proportional_set_size(process: int) -> int:
    """Bytes; shared pages are divided among their processes."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs=2, default=[1000, 4000])
    found = []
    for count in sorted(parser.parse_args().images):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(count, Path(folder)))
    print(f"{'':10}{'images':>12}{'per image':>12}{'fixed':>12}   bytes; fixed: MB")
    few, many = found
    for name in ("source", "tars", "index", "rest", "work", "memory"):
        low, high = getattr(few, name), getattr(many, name)
        each = (high - low) / (many.images - few.images)
        fixed = low - each * few.images
        print(
            f"{name:10}{high:>12,}{each:>12,.0f}{fixed / 1e6:>12,.1f}   of {many.images:,}; {low:,} of {few.images:,}"
        )


if __name__ == "__main__":
    main()
