"""A delta that was compacted holds the same samples, needs no other artifact, and can be added to again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import DamagedError, InputError
from pipeline.sharding.deltas.compact import CompactConfig, CompactShards
from pipeline.sharding.format.index import SampleIndex
from pipeline.stage import run_stage

Picture = Callable[..., bytes]


Add = Callable[..., Artifact]
Samples = Callable[[Artifact], dict[str, Any]]


def compacted(store: ArtifactStore, delta: Artifact, **values: Any) -> Artifact:
    return run_stage(CompactShards(), CompactConfig(**values), {"shards": delta}, store=store)


@pytest.fixture
def chain(store: ArtifactStore, tmp_path: Path, picture: Picture, add: Add) -> list[Artifact]:
    """A base and two deltas on it, of tmp_path/pets."""
    folder = tmp_path / "pets"
    for label, start in (("cat", 0), ("dog", 100)):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            (folder / label / f"{number:03d}.png").write_bytes(picture(start + number))
    made = [add(store, folder)]
    for night in range(2):
        (folder / "dog" / f"{night:03d}.png").unlink()
        for number in range(9):
            (folder / "cat" / f"night{night}-{number}.png").write_bytes(picture(1000 + 100 * night + number))
        made.append(add(store, folder, "newest"))
    return made


def test_the_same_samples_without_the_base(
    store: ArtifactStore, chain: list[Artifact], tmp_path: Path, add: Add, samples_of: Samples
) -> None:
    wanted = samples_of(chain[-1])
    made = compacted(store, chain[-1])
    for artifact in chain:
        shutil.rmtree(artifact.url)
    assert samples_of(made) == wanted
    assert made.verify() == []
    assert "tombstones.parquet" not in made.files
    names = SampleIndex.open(made).shard_names
    assert all(name.startswith("shards/") for name in names)
    streamed = [
        sample["__key__"]
        for name in names
        for sample in webdataset.WebDataset(str(made.path(name)), shardshuffle=False)
        if {"json", "txt", "png"} <= sample.keys()
    ]
    assert sorted(streamed) == sorted(wanted)
    assert add(store, tmp_path / "pets", "newest").name == made.name, "it is the base of the next night"


def test_its_tars_are_those_of_a_full_run(
    store: ArtifactStore, chain: list[Artifact], tmp_path: Path, add: Add
) -> None:
    """Where splits and keys are what a full run gives, even the bytes are."""
    made, full = compacted(store, chain[-1]), add(store, tmp_path / "pets")
    tars = {name: entry.sha256 for name, entry in full.files.items() if name.endswith(".tar")}
    assert {name: entry.sha256 for name, entry in made.files.items() if name.endswith(".tar")} == tars
    one, other = (pq.read_table(artifact.path("items.parquet")) for artifact in (made, full))
    columns = [name for name in one.column_names if name != "node"]
    assert one.select(columns).equals(other.select(columns))


def test_a_delta_on_what_was_compacted(
    store: ArtifactStore, chain: list[Artifact], tmp_path: Path, picture: Picture, add: Add, samples_of: Samples
) -> None:
    made = compacted(store, chain[-1])
    (tmp_path / "pets" / "dog" / "new.png").write_bytes(picture(7777))
    delta = add(store, tmp_path / "pets", "newest")
    assert delta.manifest["inputs"] == {"base": made.name}
    assert {key: samples_of(delta)[key] for key in samples_of(made)} == samples_of(made)
    assert len(samples_of(compacted(store, delta))) == len(samples_of(made)) + 1


def test_shards_that_need_no_other_are_given_back(store: ArtifactStore, chain: list[Artifact]) -> None:
    assert compacted(store, chain[0]).name == chain[0].name
    assert not list(store.list("compact-shards"))


def test_tars_are_cut_as_asked(store: ArtifactStore, chain: list[Artifact]) -> None:
    made = compacted(store, chain[-1], samples_per_shard=1000, shard_megabytes=0.02)
    tars = [entry.size for name, entry in made.files.items() if name.endswith(".tar")]
    assert max(tars) <= 20_000
    assert len(tars) > 3


def test_a_damaged_image_is_not_copied(store: ArtifactStore, chain: list[Artifact]) -> None:
    index = SampleIndex.open(chain[0])
    tar = chain[0].path(index.shard_names[0])
    content = bytearray(tar.read_bytes())
    content[int(index.offsets[0]) + 30] ^= 1
    tar.write_bytes(content)
    with pytest.raises(DamagedError, match=rf"{index.shard_names[0]}, sample {index.key(0)} at byte .*not those"):
        compacted(store, chain[-1])


def test_what_is_no_delta_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = store.commit("train-teacher", "0" * 20, tmp_path / "other", config={}, inputs={}, summary={}, seconds=0.0,
                         origin={})  # fmt: skip
    with pytest.raises(InputError, match="is of train-teacher; give an artifact of shard-dataset or compact-shards"):
        compacted(store, other)


_KILLED = """
import os, signal, sys
from pipeline.artifacts import ArtifactStore
from pipeline.sharding.deltas.compact import CompactConfig, CompactShards
from pipeline.stage import run_stage

replace, left = os.replace, [int(sys.argv[3])]

def deadly(*arguments):
    replace(*arguments)
    left[0] -= str(arguments[1]).endswith(".tar")
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = deadly
store = ArtifactStore.open(sys.argv[1])
run_stage(CompactShards(), CompactConfig(writers=1), {"shards": store.resolve(sys.argv[2])}, store=store)
"""


def test_a_killed_compaction_goes_on_where_it_stood(
    store: ArtifactStore, chain: list[Artifact], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _KILLED, store.storage.url, chain[-1].name, "3"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    done = {path.name: path.stat().st_ino for path in store.local.glob("work/compact-shards/*/scratch/shards/*.tar")}
    assert len(done) == 3
    made = compacted(store, chain[-1])
    assert {name: os.stat(made.path(f"shards/{name}")).st_ino for name in done} == done
    other = ArtifactStore.open(str(tmp_path / "other"))
    shutil.copytree(Path(store.storage.url) / "artifacts" / "shard-dataset", Path(other.storage.url) / "artifacts" /
                    "shard-dataset")  # fmt: skip
    assert compacted(other, other.resolve(chain[-1].name), writers=4).files == made.files
