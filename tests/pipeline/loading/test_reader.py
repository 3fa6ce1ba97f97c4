"""Bytes of a sample, from disk and from S3; damage is named, never passed on."""

from __future__ import annotations

import os
import threading
from typing import Any, Literal

import pytest

from pipeline.errors import DamagedError
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.index import content_hash


def check_all(reader: SampleReader, index: Any) -> None:
    for id in range(len(index)):
        assert content_hash(reader.read(id)) == index.content_hash(id)


def test_every_sample_is_read(shards: Any) -> None:
    check_all(SampleReader.open(shards.artifact, verify="always"), shards.index)


@pytest.mark.servers
@pytest.mark.parametrize("remote", ["parts", "ranges"])
def test_every_sample_is_read_from_s3(s3_shards: Any, remote: Literal["parts", "ranges"]) -> None:
    check_all(SampleReader.open(s3_shards.artifact, remote=remote, verify="always"), s3_shards.index)


@pytest.mark.servers
def test_missing_object_is_damage(s3_shards: Any) -> None:
    artifact = s3_shards.artifact
    artifact.storage.delete(artifact.object_path("shards/train-00001.tar"))
    reader = SampleReader(artifact, s3_shards.index)
    assert reader.read(0)
    with pytest.raises(DamagedError, match=r"shards/train-00001.tar, sample pic030 .* missing"):
        reader.read(30)


def test_many_threads_read_at_once(shards: Any) -> None:
    reader = SampleReader(shards.artifact, shards.index, verify="always")
    errors: list[Exception] = []

    def read_all() -> None:
        try:
            check_all(reader, shards.index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_more_shards_than_are_held_open(shards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.loading.reader._OPEN_SHARDS", 1)
    check_all(SampleReader(shards.artifact, shards.index), shards.index)


def test_closing_leaves_no_file_open(shards: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))
    reader = SampleReader(shards.artifact, shards.index)
    check_all(reader, shards.index)
    assert len(os.listdir("/proc/self/fd")) == before + 3
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert reader.read(0)


def test_shard_cut_short_is_named_with_sample_and_byte(own_shards: Any) -> None:
    path = own_shards.artifact.path("shards/train-00000.tar")
    offset, length = int(own_shards.index.offsets[9]), int(own_shards.index.lengths[9])
    os.truncate(path, offset + 10)
    reader = SampleReader(own_shards.artifact, own_shards.index)
    assert reader.read(8)
    place = f"shards/train-00000.tar, sample pic009 at byte {offset}"
    with pytest.raises(DamagedError, match=rf"{place}: the shard ends early \(10 of {length} bytes\)"):
        reader.read(9)


def test_changed_byte_is_found_by_the_content_hash(own_shards: Any) -> None:
    offset = int(own_shards.index.offsets[4])
    shard = own_shards.artifact.path("shards/train-00000.tar")
    stored = bytearray(shard.read_bytes())
    stored[offset + 20] ^= 1
    shard.write_bytes(stored)
    with pytest.raises(DamagedError, match=r"sample pic004 .* not those that were written"):
        SampleReader(own_shards.artifact, own_shards.index, verify="always").read(4)
