"""How each source says what changed, what a kill of a delta leaves, and a delta in S3."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.index import SampleIndex
from pipeline.stage import run_stage

Picture = Callable[..., bytes]
Add = Callable[..., Artifact]
MakeFolder = Callable[[dict[str, int]], Path]


def folder_source(folder: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "image_folder", "folder": str(folder), **more}


def changes(delta: Artifact) -> tuple[int, int, int]:
    """New, changed, removed."""
    return tuple(delta.summary[name] for name in ("new", "changed", "removed"))  # type: ignore[return-value]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that images are read from, beside our tars."""
    seen: list[str] = []
    real = addresses.read

    def noted(url: str, *where: Any) -> bytes:
        if not url.endswith(".tar"):
            seen.append(url)
        return real(url, *where)

    monkeypatch.setattr(addresses, "read", noted)
    return seen


def test_a_manifest_that_grew_and_a_caption_that_changed(
    store: ArtifactStore, tmp_path: Path, picture: Picture, reads: list[str], add: Add
) -> None:
    def write(lines: list[tuple[int, str]]) -> None:
        with (tmp_path / "list.csv").open("w") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "caption", "key"])
            writer.writerows([f"{number}.png", number % 2, caption, f"k{number}"] for number, caption in lines)

    for number in range(24):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    source: dict[str, Any] = {"kind": "manifest", "manifest": str(tmp_path / "list.csv"), "label_column": "label"}
    source |= {"caption_columns": ["caption"], "key_column": "key"}
    write([(number, "old") for number in range(20)])
    base = add(store, source)
    reads.clear()
    write([(number, "new" if number == 4 else "old") for number in range(1, 22)])
    delta = add(store, source, base.name)
    assert changes(delta) == (2, 1, 1)
    assert sorted(Path(url).name for url in reads) == ["20.png", "21.png", "4.png"]
    index = SampleIndex.open(delta)
    captions = {index.key(id): index.captions(id) for id in range(len(index))}
    assert captions == {f"k{number}": ["new" if number == 4 else "old"] for number in range(1, 22)}
    was, now = ({one.key(id): int(one.splits[id]) for id in range(len(one))} for one in (SampleIndex.open(base), index))
    assert {key: now[key] for key in was if key in now} == {key: was[key] for key in was if key in now}


def test_a_new_parquet_file_is_read_and_the_others_are_not(
    store: ArtifactStore, tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, add: Add
) -> None:
    from pipeline.sharding.sources import row_items

    def write(part: int) -> None:
        cells = [{"bytes": picture(100 * part + number), "path": None} for number in range(12)]
        pq.write_table(pa.table({"image": cells, "text": ["words"] * 12}), tmp_path / "parts" / f"part-{part}.parquet")

    (tmp_path / "parts").mkdir()
    seen: list[str] = []
    real = row_items.read_cell

    def noted(file: Any, column: str, row: int) -> bytes:
        seen.append(file.name)
        return real(file, column, row)

    monkeypatch.setattr(row_items, "read_cell", noted)
    source = {
        "kind": "parquet_images",
        "files": str(tmp_path / "parts"),
        "image_column": "image",
        "caption_columns": ["text"],
    }
    write(0)
    base = add(store, source)
    seen.clear()
    write(1)
    assert changes(add(store, source, base.name)) == (12, 0, 0)
    assert set(seen) == {"part-1.parquet"}


def test_a_source_without_stamps_is_read_and_only_what_differs_is_stored(
    store: ArtifactStore,
    tmp_path: Path,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
    image_folder: MakeFolder,
    add: Add,
) -> None:
    monkeypatch.setattr(addresses, "stamp", lambda url: None)
    folder = image_folder({"cat": 9, "dog": 9})
    base = add(store, folder_source(folder))
    (folder / "cat" / "new.png").write_bytes(picture(77))
    delta = add(store, folder_source(folder), base.name)
    assert changes(delta) == (1, 0, 0)
    (own,) = [name for name in SampleIndex.open(delta).shard_names if name.startswith("shards/")]
    assert delta.files[own].size < 5000


def test_names_are_trusted_if_asked(
    store: ArtifactStore,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
    image_folder: MakeFolder,
    reads: list[str],
    add: Add,
) -> None:
    monkeypatch.setattr(addresses, "stamp", lambda url: None)
    folder = image_folder({"cat": 9, "dog": 9})
    base = add(store, folder_source(folder))
    (folder / "cat" / "new.png").write_bytes(picture(77))
    (folder / "cat" / "000.png").write_bytes(picture(78))
    reads.clear()
    assert changes(add(store, folder_source(folder), base.name, trust_names=True)) == (1, 0, 0)
    assert [Path(url).name for url in reads] == ["new.png"]
    assert changes(add(store, folder_source(folder), base.name)) == (1, 1, 0)


def test_what_could_not_be_read_is_tried_again(
    store: ArtifactStore, image_folder: MakeFolder, picture: Picture, add: Add
) -> None:
    folder = image_folder({"cat": 12, "dog": 9})
    whole = (folder / "cat" / "000.png").read_bytes()
    (folder / "cat" / "000.png").write_bytes(whole[:40])
    base = add(store, folder_source(folder), max_unreadable_share=0.1)
    (folder / "dog" / "new.png").write_bytes(picture(77))
    again = add(store, folder_source(folder), base.name, max_unreadable_share=0.1)
    assert (changes(again), again.summary["unreadable"]) == ((1, 0, 0), 1)
    (folder / "cat" / "000.png").write_bytes(whole)
    (folder / "cat" / "001.jpg").write_bytes(b"no image")
    repaired = add(store, folder_source(folder), again.name, max_unreadable_share=0.1)
    assert (changes(repaired), repaired.summary["unreadable"]) == ((1, 0, 1), 1)
    tombstones = pq.read_table(repaired.path("tombstones.parquet")).to_pylist()
    assert [(row["name"], row["why"]) for row in tombstones] == [("cat/001.jpg", "unreadable")]


_KILLED = """
import os, signal, sys, threading
from pipeline.artifacts import ArtifactStore
from pipeline.config import parse_config
from pipeline.sharding.deltas.delta_base import find_base
from pipeline.sharding.stage import ShardDataset
from pipeline.sharding.config import ShardingConfig
from pipeline.stage import run_stage

url, folder, base = sys.argv[1:]
left, lock = [0], threading.Lock()

def deadly(name):
    call = getattr(os, name)
    def called(*arguments):
        with lock:
            left[0] -= 1
            last = left[0] == 0
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    setattr(os, name, called)

values = {"source": {"kind": "image_folder", "folder": folder}, "samples_per_shard": 7, "base": base, "writers": 2}
config = parse_config(ShardingConfig, values, "child").resolved()
store = ArtifactStore.open(url)
inputs = {"base": find_base(config, store).artifact}
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        left[0] = int(line)
        for name in ("replace", "fsync", "writev", "link"):
            deadly(name)
        run_stage(ShardDataset(), config, inputs, store=store)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_delta_killed_again_and_again_ends_in_the_same_bits(
    tmp_path: Path, image_folder: MakeFolder, picture: Picture, add: Add
) -> None:
    folder = image_folder({"cat": 60, "dog": 60})
    stores = [ArtifactStore.open(str(tmp_path / name)) for name in ("whole", "killed")]
    base, _ = (add(store, folder_source(folder)) for store in stores)
    for number in range(70):
        (folder / "cat" / f"new{number}.png").write_bytes(picture(5000 + number))
    (folder / "dog" / "001.jpg").unlink()
    whole = add(stores[0], folder_source(folder), base.name)
    command = [sys.executable, "-c", _KILLED, stores[1].storage.url, str(folder), base.name]
    chance, kills = random.Random(0), 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forking:
        assert forking.stdin is not None
        assert forking.stdout is not None
        while True:
            forking.stdin.write(f"{chance.randint(2, 25)}\n" if kills < 4 else "0\n")
            forking.stdin.flush()
            if (ended := int(forking.stdout.readline())) == 0:
                break
            assert ended == -signal.SIGKILL
            kills += 1
        forking.stdin.close()
    assert kills >= 3
    made = stores[1].find(whole.name)
    assert made is not None
    assert made.files == whole.files
    assert os.listdir(stores[1].local / "work" / "shard-dataset") == []


@pytest.mark.servers
@pytest.mark.parametrize("remote", ["parts", "ranges"])
def test_a_delta_in_s3_is_read_and_compacted(
    remote: Any, s3_url: str, image_folder: MakeFolder, picture: Picture, add: Add
) -> None:
    from pipeline.sharding.deltas.compact import CompactConfig, CompactShards

    store = ArtifactStore.open(f"{s3_url}/store")
    folder = image_folder({"cat": 12, "dog": 12})
    base = add(store, folder_source(folder))
    (folder / "cat" / "new.png").write_bytes(picture(77))
    (folder / "dog" / "001.jpg").unlink()
    delta = add(store, folder_source(folder), "newest")
    assert delta.manifest["inputs"] == {"base": base.name}
    compacted = run_stage(CompactShards(), CompactConfig(), {"shards": delta}, store=store)
    images = {path.read_bytes() for path in folder.rglob("*.*")}
    for artifact in (delta, compacted):
        reader = SampleReader.open(artifact, remote=remote)
        reader.prefetch(SampleIndex.open(artifact).rows())
        assert {reader.read(id) for id in range(len(SampleIndex.open(artifact)))} == images
        reader.close()
