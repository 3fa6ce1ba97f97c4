"""Shards are plain tars: tarfile and WebDataset read them, and the offsets are true."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sharding.writing.tar_writer import TarWriter, _header


def write(folder: Path, count: int, per_shard: int) -> list[tuple[str, bytes]]:
    """Writes samples of growing size; their keys and image bytes."""
    samples = [(f"key-{number}", bytes([number % 256]) * (number * 171)) for number in range(count)]
    with TarWriter(folder, per_shard) as tars:
        for key, data in samples:
            place = tars.add("train", key, [("png", data), ("json", b'{"a":1}'), ("txt", key.encode())])
            shard = folder / tars.shard_names[place.shard]
            assert place.length == len(data)
            assert shard.name == f"train-{place.shard:05d}.tar"
    return samples


def test_tarfile_reads_every_member(tmp_path: Path) -> None:
    samples = write(tmp_path, count=7, per_shard=3)
    shards = sorted((tmp_path / "shards").iterdir())
    assert [shard.name for shard in shards] == ["train-00000.tar", "train-00001.tar", "train-00002.tar"]
    found = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            names = [member.name for member in tar]
            assert [name.partition(".")[2] for name in names] == ["png", "json", "txt"] * (len(names) // 3)
            for name in names[::3]:
                file = tar.extractfile(name)
                assert file is not None
                found.append((name.partition(".")[0], file.read()))
    assert found == samples


def test_webdataset_reads_every_sample(tmp_path: Path) -> None:
    samples = write(tmp_path, count=7, per_shard=3)
    urls = [str(shard) for shard in sorted((tmp_path / "shards").iterdir())]
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [(sample["__key__"], sample["png"]) for sample in found] == samples
    assert [sample["txt"].decode() for sample in found] == [key for key, _ in samples]


def test_offset_and_length_are_where_the_image_lies(tmp_path: Path) -> None:
    with TarWriter(tmp_path, 10) as tars:
        places = [(tars.add("val", f"k{n}", [("jpg", b"x" * n), ("json", b"{}")]), n) for n in (0, 1, 511, 512, 513)]
    data = (tmp_path / "shards/val-00000.tar").read_bytes()
    for place, size in places:
        assert data[place.offset : place.offset + place.length] == b"x" * size


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, count=5, per_shard=2)
    for shard in (tmp_path / "one/shards").iterdir():
        assert shard.read_bytes() == (tmp_path / "two/shards" / shard.name).read_bytes()


@given(st.from_regex(r"[A-Za-z0-9_-]{1,80}\.(png|json)", fullmatch=True), st.integers(0, 2**33 - 1))
def test_header_is_the_one_that_tarfile_writes(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    assert _header(name, size) == member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "grün"])
def test_a_key_that_readers_would_misread_is_refused(tmp_path: Path, key: str) -> None:
    with TarWriter(tmp_path, 10) as tars, pytest.raises(ValueError, match="sample key"):
        tars.add("train", key, [("png", b"")])


def test_a_split_that_comes_back_is_refused(tmp_path: Path) -> None:
    with TarWriter(tmp_path, 10) as tars:
        tars.add("train", "a", [("png", b"")])
        tars.add("val", "b", [("png", b"")])
        with pytest.raises(ValueError, match="written already"):
            tars.add("train", "c", [("png", b"")])
