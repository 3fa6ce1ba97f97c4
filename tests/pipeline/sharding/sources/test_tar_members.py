"""Members are found as tarfile finds them; what a tar of images does not need is refused by shard, member and byte."""

from __future__ import annotations

import bz2
import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.sharding.sources.tar_members import Member, RefusedTarError, check_tar, tar_members

SAFE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="/\\"), min_size=1)
NAMES = st.lists(SAFE.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map("/".join)


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def info(name: str, **more: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made


def members(data: bytes, max_bytes: int = 1 << 20) -> list[Member]:
    return list(tar_members("a.tar", len(data), lambda s, n: data[s : s + n], max_bytes=max_bytes))


def refused(data: bytes) -> str:
    with pytest.raises(RefusedTarError) as caught:
        members(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_names_and_data_are_those_that_tarfile_reads(files: list[tuple[str, bytes]], form: int) -> None:
    # A drive letter is refused, and tarfile strips what it takes for a folder's sign.
    files = [(name, data) for name, data in files if ":" not in name and not name.endswith("/")]
    data = tar_of(*[(info(name), content) for name, content in files], form=form)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(one.name, tar.extractfile(one).read()) for one in tar]  # type: ignore[union-attr]
    assert [(one.name, data[one.offset : one.offset + one.length]) for one in members(data)] == expected


def test_folders_and_a_leading_dot_are_skipped() -> None:
    data = tar_of((info("./a", type=tarfile.DIRTYPE), b""), (info("./a/b.jpg"), b"image"))
    assert [one.name for one in members(data)] == ["a/b.jpg"]


def test_a_name_of_two_hundred_bytes_in_ustar_is_whole() -> None:
    name = "/".join(["folder" * 10] * 3) + "/0001.jpg"
    assert [one.name for one in members(tar_of((info(name), b"x")))] == [name]


@pytest.mark.parametrize(
    ("member", "what"),
    [
        (info("/etc/passwd"), "an absolute name"),
        (info("C:/a.jpg"), "an absolute name"),
        (info("\\\\host\\a.jpg"), "an absolute name"),
        (info("a/../../b.jpg"), "a name that leaves the folder"),
        (info("..\\b.jpg"), "a name that leaves the folder"),
        (info("a\nb.jpg"), "control characters"),
        (info("a.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a symbolic link"),
        (info("a.jpg", type=tarfile.LNKTYPE, linkname="b.jpg"), "a hard link"),
        (info("a.jpg", type=tarfile.CHRTYPE), "a character device"),
        (info("a.jpg", type=tarfile.BLKTYPE), "a block device"),
        (info("a.jpg", type=tarfile.FIFOTYPE), "a pipe"),
        (info("a.jpg", type=tarfile.GNUTYPE_SPARSE), "a sparse file"),
        (info("a.jpg", type=b"Z"), "of unknown type"),
    ],
)
def test_hostile_members_are_refused_with_name_and_byte(member: tarfile.TarInfo, what: str) -> None:
    data = tar_of((info("fine.jpg"), b"x" * 600), (member, b""))
    line = refused(data)
    assert what in line
    assert f"a.tar, member {member.name!r} at byte {512 + 1024}" in line


def test_a_sparse_file_in_pax_records_is_refused() -> None:
    member = info("a.jpg", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.name": "a.jpg"})
    assert "a sparse file" in refused(tar_of((member, b"x"), form=tarfile.PAX_FORMAT))


def test_a_size_beyond_the_archive_or_the_limit_is_refused() -> None:
    data = tar_of((info("a.jpg"), b"x" * 5000), (info("b.jpg"), b"y"))
    assert "5000 bytes are promised and 3584 are left" in refused(data[:4096])
    with pytest.raises(RefusedTarError, match=r"5000 bytes, more than max_member_mb"):
        members(data, max_bytes=4999)
    huge = bytearray(data)
    huge[124:136] = b"\x80" + (10**18).to_bytes(11, "big")
    huge[148:156] = b" " * 8
    huge[148:156] = b"%06o\0 " % sum(huge[:512])
    assert "1000000000000000000 bytes are promised" in refused(bytes(huge))


def test_a_damaged_header_is_refused_with_its_byte() -> None:
    data = bytearray(tar_of((info("a.jpg"), b"x"), (info("b.jpg"), b"y")))
    data[1024 + 124] ^= 7
    assert "a.tar, byte 1024: no tar header" in refused(bytes(data))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_damage_is_refused_or_read_and_never_anything_else(draw: st.DataObject) -> None:
    data = bytearray(tar_of((info("a.jpg"), b"x" * 700), (info("n" * 150), b"y"), form=tarfile.PAX_FORMAT))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    data = data[: draw.draw(st.integers(0, len(data)))]
    try:
        for member in members(bytes(data)):
            assert 0 <= member.offset <= member.offset + member.length <= len(data)
    except InputError:
        pass


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\x1f\x8b\x08" + bytes(600), r"compressed \(gzip\)"),
        *((bz2.compress(bytes(600), level), r"compressed \(bzip2\)") for level in (1, 9)),
        (b"\x28\xb5\x2f\xfd" + bytes(600), r"compressed \(zstd\)"),
        (b"\xff\xd8\xff\xe0" + bytes(600), "not a tar"),
        (b"", r"not a tar \(0 bytes"),
        (b"short", "not a tar"),
    ],
)
def test_what_is_no_plain_tar_is_refused_at_once(start: bytes, what: str) -> None:
    with pytest.raises(InputError, match=what):
        check_tar("a.tgz", len(start), start[:512])


def test_only_headers_are_read() -> None:
    data = tar_of(*[(info(f"{n}.jpg"), bytes(100_000)) for n in range(5)])
    read_bytes = 0

    def read(start: int, length: int) -> bytes:
        nonlocal read_bytes
        read_bytes += length
        return data[start : start + length]

    found: Callable[[], list[Member]] = lambda: list(tar_members("a", len(data), read, max_bytes=1 << 20))  # noqa: E731
    assert len(found()) == 5
    assert read_bytes <= 512 * 8 + tarfile.RECORDSIZE  # The zeros behind the end mark are looked at too.
