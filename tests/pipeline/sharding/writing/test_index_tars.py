"""Foreign tars are indexed where they lie: nothing is copied, and the reader gives their very bytes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import DamagedError, InputError
from pipeline.loading.reader import SampleReader
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.format.index import SampleIndex
from pipeline.storage import open_storage

Shard = Callable[..., Artifact]
Picture = Callable[..., bytes]


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            made = tarfile.TarInfo(name)
            made.size = len(data)
            tar.addfile(made, io.BytesIO(data))


def foreign(folder: Path, picture: Picture, tars: int = 3, each: int = 12) -> dict[str, bytes]:
    """Tars with .jpg .txt .cls, and the images by key; two keys are used twice."""
    images = {}
    for tar in range(tars):
        members = []
        for number in range(each):
            key = "twice" if number == 3 and tar < 2 else f"{tar}{number:03d}"
            image = picture(100 * tar + number, "JPEG")
            images["twice-2" if key in images else key] = image
            members += [(f"{key}.jpg", image), (f"{key}.txt", f"caption {tar} {number}".encode())]
            members.append((f"{key}.cls", str(number % 2).encode()))
        write_tar(folder / f"{tar:05d}.tar", members)
    return images


def in_place(tars: Any, **more: Any) -> dict[str, Any]:
    return {"kind": "webdataset", "tars": str(tars), "in_place": True, **more}


def read_all(artifact: Artifact, **options: Any) -> dict[str, bytes]:
    index = SampleIndex.open(artifact)
    reader = SampleReader(artifact, index, **options)
    try:
        reader.prefetch(index.rows())
        return {index.key(id): reader.read(id) for id in np.random.default_rng(0).permutation(len(index)).tolist()}
    finally:
        reader.close()


def test_the_reader_gives_the_bytes_of_the_tars(tmp_path: Path, shard: Shard, picture: Picture) -> None:
    images = foreign(tmp_path / "tars", picture)
    artifact = shard(source=in_place(tmp_path / "tars"))
    assert read_all(artifact, verify="always") == images
    assert not any(name.endswith(".tar") for name in artifact.files)
    assert {"index.arrow", "index.parquet", "tars.json", "data_card.md", "contact_sheet.png"} <= set(artifact.files)
    index = SampleIndex.open(artifact)
    assert index.shard_names == tuple(str(tmp_path / "tars" / f"{n:05d}.tar") for n in range(3))
    assert artifact.summary["samples"] == len(index) == 36
    assert artifact.summary["megabytes"] == 0
    for split in ("train", "val", "test"):
        ids = index.rows(split)
        # From front to back of each tar: what a reader of a disk or of S3 wants.
        places = list(zip(index.shards[ids].tolist(), index.offsets[ids].tolist(), strict=True))
        assert ids.size
        assert places == sorted(places)
        assert (np.diff(ids) == 1).all()


def test_labels_captions_splits_and_keys_are_those_of_a_copy(tmp_path: Path, shard: Shard, picture: Picture) -> None:
    foreign(tmp_path / "tars", picture)
    source = in_place(tmp_path / "tars")

    def known(artifact: Artifact) -> dict[str, Any]:
        index = SampleIndex.open(artifact)
        return {
            index.key(id): (
                index.captions(id),
                int(index.labels[id]),
                int(index.splits[id]),
                index.content_hash(id),
                int(index.widths[id]),
                index.taxonomy[index.nodes[id]].name,
                index.family(id),
            )
            for id in index.rows()
        }

    assert known(shard(source=source)) == known(shard(source={**source, "in_place": False}))


def test_any_number_of_writers_gives_the_same_bits(tmp_path: Path, shard: Shard, picture: Picture) -> None:
    foreign(tmp_path / "tars", picture)
    one = shard(source=in_place(tmp_path / "tars"), writers=1)
    two = shard(into=ArtifactStore.open(str(tmp_path / "other")), source=in_place(tmp_path / "tars"), writers=5)
    assert one.files == two.files


def test_an_image_that_would_need_a_copy_is_quarantined(tmp_path: Path, shard: Shard, picture: Picture) -> None:
    members = [(f"{n}.jpg", picture(n, "JPEG")) for n in range(20)]
    write_tar(tmp_path / "t.tar", [*members, ("cmyk.jpg", picture(50, "JPEG", "CMYK"))])
    artifact = shard(source=in_place(tmp_path / "t.tar"), max_unreadable_share=0.1)
    assert artifact.summary["unreadable"] == 1
    (row,) = pq.read_table(artifact.path("quarantine.parquet")).to_pylist()
    assert row["name"] == "t.tar: cmyk"
    assert row["reason"] == "would be re-encoded (was CMYK), which needs in_place=false"
    with pytest.raises(InputError, match=r"images\.max_side: an image that is indexed in place"):
        shard(source=in_place(tmp_path / "t.tar"), images={"max_side": 32})


def test_a_tar_that_changed_or_went_away_is_told_and_never_read(tmp_path: Path, shard: Shard, picture: Picture) -> None:
    foreign(tmp_path / "tars", picture)
    artifact = shard(source=in_place(tmp_path / "tars"))
    index = SampleIndex.open(artifact)
    tar = tmp_path / "tars" / "00001.tar"
    (id,) = index.rows()[index.shards == 1][:1].tolist()
    facts = tar.stat()
    os.utime(tar, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    with pytest.raises(DamagedError, match=r"00001\.tar: changed since it was indexed in place"):
        SampleReader(artifact, index).read(id)
    tar.unlink()
    with pytest.raises(DamagedError, match="is gone; bring it back"):
        SampleReader(artifact, index).read(id)


def test_tars_that_moved_get_an_index_of_their_own(tmp_path: Path, picture: Picture) -> None:
    foreign(tmp_path / "tars", picture, tars=1)

    def fingerprint(tars: Path, **more: Any) -> str:
        source = {"kind": "webdataset", "tars": str(tars), **more}
        made: str = parse_config(ShardingConfig, {"source": source}, "test").source.resolved().fingerprint
        return made

    here = [fingerprint(tmp_path / "tars", in_place=flag) for flag in (True, False)]
    moved = (tmp_path / "tars").rename(tmp_path / "moved")
    assert fingerprint(moved, in_place=True) != here[0]
    assert fingerprint(moved) == here[1]


@pytest.mark.servers
@pytest.mark.parametrize("remote", ["parts", "ranges"])
def test_tars_in_s3_are_read_in_place_from_any_store(
    remote: str, tmp_path: Path, s3_url: str, shard: Shard, picture: Picture
) -> None:
    images = foreign(tmp_path / "tars", picture)
    storage = open_storage(s3_url)
    for tar in (tmp_path / "tars").iterdir():
        storage.upload(tar, f"tars/{tar.name}")
    for store in (str(tmp_path / "store"), f"{s3_url}/store"):
        artifact = shard(into=ArtifactStore.open(store), source=in_place(f"{s3_url}/tars"))
        assert read_all(artifact, remote=remote) == images
