"""Shards are plain tars: tarfile and WebDataset read them, and the offsets are true."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sharding.writing.tar_writer import TarFile, _header


def write(path: Path, count: int) -> list[tuple[str, bytes]]:
    """Writes samples of growing size; their keys and image bytes."""
    samples = [(f"key-{number}", bytes([number % 256]) * (number * 171)) for number in range(count)]
    tar = TarFile(path)
    for key, data in samples:
        tar.add(key, [("png", data), ("json", b'{"a":1}'), ("txt", key.encode())])
    assert tar.close() == path.stat().st_size
    return samples


def test_tarfile_reads_every_member(tmp_path: Path) -> None:
    samples = write(tmp_path / "a.tar", count=7)
    found = []
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = [member.name for member in tar]
        assert [name.partition(".")[2] for name in names] == ["png", "json", "txt"] * 7
        for name in names[::3]:
            file = tar.extractfile(name)
            assert file is not None
            found.append((name.partition(".")[0], file.read()))
    assert found == samples


def test_webdataset_reads_every_sample(tmp_path: Path) -> None:
    samples = write(tmp_path / "a.tar", count=7)
    found = list(webdataset.WebDataset([str(tmp_path / "a.tar")], shardshuffle=False))
    assert [(sample["__key__"], sample["png"]) for sample in found] == samples
    assert [sample["txt"].decode() for sample in found] == [key for key, _ in samples]


def test_offset_and_length_are_where_the_image_lies(tmp_path: Path) -> None:
    tar = TarFile(tmp_path / "a.tar")
    found = [(tar.add(f"k{size}", [("jpg", b"x" * size), ("json", b"{}")]), size) for size in (0, 1, 511, 512, 513)]
    tar.close()
    data = (tmp_path / "a.tar").read_bytes()
    for (offset, length), size in found:
        assert data[offset : offset + length] == b"x" * size
        assert length == size


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, count=5)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@given(st.from_regex(r"[A-Za-z0-9_-]{1,80}\.(png|json)", fullmatch=True), st.integers(0, 2**33 - 1))
def test_header_is_the_one_that_tarfile_writes(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    assert _header(name, size) == member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "grün"])
def test_a_key_that_readers_would_misread_is_refused(tmp_path: Path, key: str) -> None:
    tar = TarFile(tmp_path / "a.tar")
    with pytest.raises(ValueError, match="sample key"):
        tar.add(key, [("png", b"")])
    tar.close()
