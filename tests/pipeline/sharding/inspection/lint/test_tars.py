"""Every code of the lint is given for a tar that is broken just so, at the very byte; whole tars are clean."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.artifacts import Artifact
from pipeline.errors import InputError
from pipeline.sharding.inspection.lint.findings import CODES, Findings
from pipeline.sharding.inspection.lint.lint import Totals, lint
from pipeline.sharding.inspection.lint.target import artifact_target, tars_target

Picture = Callable[..., bytes]
Reported = tuple[str, str, str, int | None]

END = bytes(1024)
DOCS = Path(__file__).parents[5] / "docs" / "lint.md"


def header(name: bytes, size: int, *, kind: bytes = b"0", link: bytes = b"", sum_off: int = 0) -> bytes:
    """A ustar header, written by hand."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % (sum(block) + sum_off)
    return bytes(block)


def member(name: str, data: bytes, **more: int) -> bytes:
    return header(name.encode(), len(data), **more) + data + bytes(-len(data) % 512)


def tar(*members: tuple[str, bytes]) -> bytes:
    return b"".join(member(name, data) for name, data in members) + END


def found(*paths: Path, deep: bool = True, limit: int = 100) -> tuple[list[Reported], Findings, Totals]:
    findings = Findings(limit)
    totals = lint([tars_target([str(path) for path in paths])], findings, deep=deep, threads=2)
    reported = [
        (code.name, finding.key, finding.member, finding.byte)
        for code, _, shown in findings.by_code()
        for finding in shown
    ]
    return reported, findings, totals


@pytest.fixture(scope="session")
def jpeg(picture: Picture) -> bytes:
    return picture(1, "JPEG")


@pytest.fixture(scope="session")
def png(picture: Picture) -> bytes:
    return picture(2)


def image(mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (16, 16), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 3).save(buffer, kind, **options)
    return buffer.getvalue()


def animated() -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return image(kind="JPEG", exif=exif)


def bomb() -> bytes:
    """A PNG whose header promises 10,000 x 10,000 pixels."""
    data = bytearray(image())
    data[16:24] = (10_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


# For each code: the tar's bytes made of one whole image, and what is reported of it.
CASES: dict[str, list[tuple[Callable[[bytes], bytes], Reported]]] = {
    "not-a-tar": [
        (lambda image: b"", ("not-a-tar", "", "", 0)),
        (lambda image: image + bytes(600), ("not-a-tar", "", "", 0)),
        (lambda image: b"\x1f\x8b" + bytes(600), ("not-a-tar", "", "", 0)),
    ],
    "tar-truncated": [
        (lambda image: tar(("a.jpg", image), ("b.jpg", image))[:-1024 - 600], ("tar-truncated", "", "b.jpg", -1)),
        (lambda image: tar(("a.jpg", image))[:-1024] + b"b.jpg", ("tar-truncated", "", "", -1)),
    ],
    "tar-header": [
        (
            lambda image: member("a.jpg", image) + member("b.jpg", image, sum_off=1) + member("c.jpg", image) + END,
            ("tar-header", "", "", 512 + 1024),
        ),
        (
            lambda image: member("a.jpg", image)
            + header(b"././@PaxHeader", 9, kind=b"x") + b"no record" + bytes(503) + member("c.jpg", image) + END,
            ("tar-header", "", "././@PaxHeader", 512 + 1024),
        ),
    ],
    "tar-after-end": [
        (lambda image: tar(("a.jpg", image)) + tar(("b.jpg", image)), ("tar-after-end", "", "", 512 + 1024 + 1024)),
    ],
    "tar-no-end": [
        (lambda image: tar(("a.jpg", image))[:-1024], ("tar-no-end", "", "", -1)),
        (lambda image: tar(("a.jpg", image))[:-512], ("tar-no-end", "", "", 512 + 1024)),
    ],
    "member-name": [
        (lambda image: tar(("b.jpg", image), ("/etc/a.jpg", image)), ("member-name", "", "/etc/a.jpg", 1536)),
        (lambda image: tar(("b.jpg", image), ("../a.jpg", image)), ("member-name", "", "../a.jpg", 1536)),
        (lambda image: tar(("b.jpg", image), ("a\nb.jpg", image)), ("member-name", "", "a\nb.jpg", 1536)),
    ],
    "member-link": [
        (
            lambda image: member("a.jpg", image) + header(b"b.jpg", 0, kind=b"2", link=b"/etc/passwd") + END,
            ("member-link", "", "b.jpg", 1536),
        ),
        (lambda image: member("a.jpg", image) + header(b"b", 0, kind=b"1") + END, ("member-link", "", "b", 1536)),
    ],
    "member-special": [
        (lambda image: member("a.jpg", image) + header(b"d", 0, kind=b"3") + END, ("member-special", "", "d", 1536)),
        (lambda image: member("a.jpg", image) + header(b"d", 0, kind=b"Z") + END, ("member-special", "", "d", 1536)),
    ],
    "member-large": [
        (
            lambda image: tar(("a.jpg", image), ("a.txt", b"a" * ((1 << 20) + 1))),
            ("member-large", "a", "a.txt", 1536),
        ),
    ],
    "member-ignored": [
        (lambda image: tar(("a.jpg", image), ("README", b"x")), ("member-ignored", "", "README", 1536)),
        (lambda image: tar(("a.jpg", image), ("._a.jpg", b"x")), ("member-ignored", "", "._a.jpg", 1536)),
    ],
    "member-unknown": [
        (lambda image: tar(("a.jpg", image), ("a.mystery", b"x")), ("member-unknown", "a", "a.mystery", 1536)),
    ],
    "member-empty": [(lambda image: tar(("a.jpg", image), ("a.npy", b"")), ("member-empty", "a", "a.npy", 1536))],
    "member-pickle": [(lambda image: tar(("a.jpg", image), ("a.pyd", b"x")), ("member-pickle", "a", "a.pyd", 1536))],
    "extension-case": [
        (lambda image: tar(("a.jpg", image), ("b.JPG", image)), ("extension-case", "", "b.JPG", 1536)),
    ],
    "member-repeated": [
        (lambda image: tar(("a.jpg", image), ("a.jpg", image)), ("member-repeated", "a", "a.jpg", 1536)),
        (lambda image: tar(("a.jpg", image), ("a.JPG", image)), ("member-repeated", "a", "a.JPG", 1536)),
    ],
    "sample-split": [
        (
            lambda image: tar(("a.jpg", image), ("b.jpg", image), ("a.txt", b"late")),
            ("sample-split", "a", "a.txt", 2 * 1536),
        ),
    ],
    "key-repeated": [
        (
            lambda image: tar(("a.jpg", image), ("b.jpg", image), ("a.jpg", image)),
            ("key-repeated", "a", "a.jpg", 2 * 1536),
        ),
    ],
    "key-dots": [
        (lambda image: tar(("a.jpg", image), ("b.v2.jpg", image)), ("key-dots", "b", "b.v2.jpg", 1536)),
    ],
    "sample-no-image": [
        (lambda image: tar(("a.jpg", image), ("b.txt", b"words")), ("sample-no-image", "b", "b.txt", 1536)),
    ],
    "image-truncated": [
        (lambda image: tar(("a.jpg", image[:-200])), ("image-truncated", "a", "a.jpg", 512)),
        (lambda _: tar(("a.png", image()[:-20])), ("image-truncated", "a", "a.png", 512)),
        (lambda _: tar(("a.webp", image(kind="WEBP", lossless=True)[:-8])), ("image-truncated", "a", "a.webp", 512)),
    ],
    "image-broken": [
        (lambda image: tar(("a.jpg", b"")), ("image-broken", "a", "a.jpg", 512)),
        (lambda image: tar(("a.jpg", b"<html>")), ("image-broken", "a", "a.jpg", 512)),
    ],
    "image-bomb": [(lambda _: tar(("a.png", bomb())), ("image-bomb", "a", "a.png", 512))],
    "image-cmyk": [(lambda _: tar(("a.jpg", image("CMYK", "JPEG"))), ("image-cmyk", "a", "a.jpg", 512))],
    "image-rotated": [(lambda _: tar(("a.jpg", rotated())), ("image-rotated", "a", "a.jpg", 512))],
    "image-animated": [(lambda _: tar(("a.webp", animated())), ("image-animated", "a", "a.webp", 512))],
    "image-16-bit": [(lambda _: tar(("a.png", image("I;16"))), ("image-16-bit", "a", "a.png", 512))],
    "image-transparent": [(lambda _: tar(("a.png", image("RGBA"))), ("image-transparent", "a", "a.png", 512))],
    "image-form": [
        (lambda _: tar(("a.gif", image("P", "GIF"))), ("image-form", "a", "a.gif", 512)),
        (lambda _: tar(("a.png", image("P"))), ("image-form", "a", "a.png", 512)),
    ],
    "image-extension": [(lambda _: tar(("a.jpg", image())), ("image-extension", "a", "a.jpg", 512))],
    "image-size": [
        (lambda _: tar(("a.png", image(size=(7, 30)))), ("image-size", "a", "a.png", 512)),
        (lambda _: tar(("a.png", image(size=(10, 161)))), ("image-size", "a", "a.png", 512)),
    ],
    "caption-encoding": [
        (lambda image: tar(("a.jpg", image), ("a.txt", b"caf\xe9")), ("caption-encoding", "a", "a.txt", 2048 + 3)),
    ],
    "caption-empty": [
        (lambda image: tar(("a.jpg", image), ("a.txt", b" \n")), ("caption-empty", "a", "a.txt", 1536 + 512)),
    ],
    "caption-long": [
        (lambda image: tar(("a.jpg", image), ("a.txt", b"x" * 2001)), ("caption-long", "a", "a.txt", 1536 + 512)),
    ],
    "caption-control": [
        (
            lambda image: tar(("a.jpg", image), ("a.txt", "é\x07".encode())),
            ("caption-control", "a", "a.txt", 1536 + 512 + 2),
        ),
    ],
    "json-broken": [
        (
            lambda image: tar(("a.jpg", image), ("a.json", '{"é": nope}'.encode())),
            ("json-broken", "a", "a.json", 1536 + 512 + 7),
        ),
        (lambda image: tar(("a.jpg", image), ("a.json", b"[\xff]")), ("json-broken", "a", "a.json", 1536 + 512 + 1)),
        (lambda image: tar(("a.jpg", image), ("a.json", b"[" * 9**6)), ("json-broken", "a", "a.json", 1536 + 512)),
    ],
    "json-key": [
        (lambda image: tar(("a.jpg", image), ("a.json", b'{"key":"b"}')), ("json-key", "a", "a.json", 1536 + 512)),
    ],
    "json-text": [
        (
            lambda image: tar(("a.jpg", image), ("a.json", rb'{"caption":"\ud83d"}')),
            ("json-text", "a", "a.json", 1536 + 512),
        ),
    ],
    "label-not-integer": [
        (lambda image: tar(("a.jpg", image), ("a.cls", b"cat")), ("label-not-integer", "a", "a.cls", 1536 + 512)),
        (lambda image: tar(("a.jpg", image), ("a.cls", b"9" * 5000)), ("label-not-integer", "a", "a.cls", 1536 + 512)),
    ],
    "caption-missing": [
        (
            lambda image: tar(("a.jpg", image), ("b.jpg", image), ("b.txt", b"words")),
            ("caption-missing", "a", "a.jpg", 0),
        ),
    ],
    "label-missing": [
        (lambda image: tar(("a.jpg", image), ("b.jpg", image), ("b.cls", b"1")), ("label-missing", "a", "a.jpg", 0)),
    ],
    "member-missing": [
        (
            lambda image: tar(("a.jpg", image), ("b.jpg", image), ("b.npy", b"1")),
            ("member-missing", "a", "a.jpg", 0),
        ),
    ],
    "shard-empty": [(lambda image: END, ("shard-empty", "", "", None))],
}  # fmt: skip
BROKEN = [(name, build, reported) for name, cases in CASES.items() for build, reported in cases]
# Those that one tar alone cannot show; each has a test of its own below, or in test_artifact.py.
SEVERAL = {"shard-size", "shard-repeated", "tar-unreadable"}
ARTIFACT = {
    "shard-missing", "tar-changed", "file-damaged", "index-damaged", "index-range", "index-key-repeated",
    "index-offset", "index-length", "index-key", "index-hash", "index-size", "index-label", "index-captions",
    "index-split", "index-lacks",
}  # fmt: skip


@pytest.mark.parametrize(("name", "build", "reported"), BROKEN, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(BROKEN)])
def test_a_tar_that_is_broken_so_is_reported_at_its_byte(
    name: str, build: Callable[[bytes], bytes], reported: Reported, tmp_path: Path, picture: Picture
) -> None:
    photo = picture(1, "JPEG", size=(20, 15))
    assert 512 < len(photo) <= 1024  # so that the bytes of the table hold
    data = build(photo)
    (tmp_path / "a.tar").write_bytes(data)
    expected = (*reported[:3], len(data)) if reported[3] == -1 else reported
    findings = found(tmp_path / "a.tar")[0]
    assert expected in findings
    # Whatever else is reported follows from it: a cut tar lacks members, an empty image is no image.
    assert {finding[0] for finding in findings if CODES[finding[0]].severity == "error"} <= {
        name,
        "sample-no-image",
        "key-dots",
    }


def test_every_code_has_a_broken_tar_here_and_a_line_in_the_docs() -> None:
    assert set(CASES) | SEVERAL | ARTIFACT == set(CODES)
    lines = DOCS.read_text().splitlines()
    rows = [f"| `{name}` | {code.severity} | {code.doc} |" for name, code in sorted(CODES.items())]
    table = ["| code | severity | what it means |", "|---|---|---|", *rows]
    start = lines.index(table[0])
    assert lines[start : start + len(table)] == table


def test_foreign_tars_of_img2dataset_and_imagenet_are_clean(tmp_path: Path, picture: Picture) -> None:
    for shard in range(3):
        with webdataset.TarWriter(str(tmp_path / f"{shard:05d}.tar")) as writer:
            for number in range(8):
                key = f"{shard:05d}{number:04d}"
                about = {
                    "url": "https://example.org/é.jpg",
                    "caption": f"ein Bild {key}",
                    "key": key,
                    "status": "success",
                }
                data = picture(100 * shard + number, "JPEG")
                writer.write({"__key__": key, "jpg": data, "txt": f"ein Bild {key}", "json": about, "cls": number})
    reported, _, totals = found(tmp_path)
    assert reported == []
    assert (totals.shards, totals.samples, totals.members) == (3, 24, 96)
    assert found(tmp_path / "{00000..00002}.tar")[0] == []
    assert found(tmp_path, deep=False)[0] == []


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_tar_itself_writes_is_clean(tmp_path: Path, form: int, jpeg: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as writer:
        for name in ("folder/a.jpg", "x" * 40 + "/" + "y" * 90 + ".jpg"):
            made = tarfile.TarInfo(name)
            made.size = len(jpeg)
            writer.addfile(made, io.BytesIO(jpeg))
    assert found(tmp_path / "a.tar")[0] == []


def test_readers_do_trip_over_what_is_an_error(tmp_path: Path, jpeg: bytes) -> None:
    """The lint's claims about webdataset, by webdataset."""
    split = tmp_path / "split.tar"
    split.write_bytes(tar(("a.jpg", jpeg), ("b.jpg", jpeg), ("a.txt", b"late")))
    assert [s["__key__"] for s in webdataset.WebDataset(str(split), shardshuffle=False)] == ["a", "b", "a"]
    twice = tmp_path / "twice.tar"
    twice.write_bytes(tar(("a.jpg", jpeg), ("a.JPG", jpeg)))
    with pytest.raises(ValueError, match="duplicate file name"):
        list(webdataset.WebDataset(str(twice), shardshuffle=False))
    joined = tmp_path / "joined.tar"
    joined.write_bytes(tar(("a.jpg", jpeg)) + tar(("b.jpg", jpeg)))
    assert [s["__key__"] for s in webdataset.WebDataset(str(joined), shardshuffle=False)] == ["a"]


def test_behind_a_damaged_header_the_lint_goes_on(tmp_path: Path, jpeg: bytes) -> None:
    data = member("a.jpg", jpeg, sum_off=3) + member("b.txt", b"\xff") + END
    (tmp_path / "a.tar").write_bytes(member("0.jpg", jpeg) + data)
    start = 512 + -(-len(jpeg) // 512) * 512
    reported = found(tmp_path / "a.tar")[0]
    assert ("tar-header", "", "", start) in reported
    assert ("caption-encoding", "b", "b.txt", 2 * start + 512) in reported


def test_shards_are_compared_with_each_other(tmp_path: Path, picture: Picture) -> None:
    for number, images in enumerate((6, 6, 1, 6, 60, 1)):
        photos = [(f"{number}-{n}.png", picture(100 * number + n, size=(40, 40))) for n in range(images)]
        (tmp_path / f"{number:05d}.tar").write_bytes(tar(*photos))
    reported, findings, _ = found(tmp_path)
    assert reported == []  # one against six is not yet odd
    (tmp_path / "00002.tar").write_bytes(tar(("x.png", image())))
    (tmp_path / "00004.tar").write_bytes(tar(*[(f"4-{n}.png", picture(400 + n, size=(40, 40))) for n in range(66)]))
    (tmp_path / "00006.tar").write_bytes((tmp_path / "00001.tar").read_bytes())
    reported, findings, _ = found(tmp_path, deep=False)
    assert [finding.shard for finding in findings.of("shard-size")] == ["00002.tar", "00004.tar"]
    assert [(finding.shard, finding.message) for finding in findings.of("shard-repeated")] == [
        ("00006.tar", "its bytes are those of 00001.tar")
    ]


def test_a_tar_that_cannot_be_read_is_reported_and_the_others_are_checked(tmp_path: Path, jpeg: bytes) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tar").write_bytes(tar((f"{name}.jpg", jpeg)))
    target = tars_target([str(tmp_path)])
    (tmp_path / "a.tar").unlink()
    findings = Findings(5)
    totals = lint([target], findings)
    assert [(finding.shard, finding.code.name) for finding in findings.of("tar-unreadable")] == [
        ("a.tar", "tar-unreadable")
    ]
    assert totals.samples == 1
    # It is not empty, nor are two that cannot be read alike.
    assert findings.counts == {"tar-unreadable": 1}


def test_shallow_reads_headers_only(tmp_path: Path, jpeg: bytes) -> None:
    broken = tar(("a.jpg", jpeg[:100]), ("a.txt", b"\xff"), ("b.txt", b"\xff"))
    (tmp_path / "a.tar").write_bytes(broken)
    assert {finding[0] for finding in found(tmp_path / "a.tar", deep=False)[0]} == {"sample-no-image"}


def test_few_findings_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(*[(f"{n}.jpg", b"no image") for n in range(50)]))
    reported, findings, _ = found(tmp_path / "a.tar", limit=3)
    assert reported == [("image-broken", str(n), f"{n}.jpg", 512 + 1024 * n) for n in range(3)]
    assert findings.counts["image-broken"] == findings.number("error") == 50


def test_members_of_other_images_of_a_sample_are_checked_too(tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(tar(("a.jpg", jpeg), ("a.png", b"broken")))
    start = 512 + -(-len(jpeg) // 512) * 512
    assert found(tmp_path / "a.tar")[0] == [("image-broken", "a", "a.png", start + 512)]


def test_our_own_shards_are_clean_and_so_are_they_as_foreign_tars(
    image_folder: Callable[..., Path], shard: Callable[..., Artifact]
) -> None:
    artifact = shard(source={"kind": "image_folder", "folder": str(image_folder({"cat": 20, "dog": 20}))})
    findings = Findings(5)
    totals = lint([artifact_target(artifact, findings)], findings)
    assert findings.counts == {}
    assert totals.samples == 40
    reported, _, totals = found(artifact.path("shards/train-00000.tar").parent)
    assert reported == []
    assert totals.samples == 40


def test_wrong_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        tars_target([str(tmp_path / "missing.tar")])
    with pytest.raises(InputError, match="holds no file"):
        tars_target([str(tmp_path)])


@pytest.fixture(scope="module")
def whole(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for number in range(3):
            about = json.dumps({"key": f"k{number}", "label": "x", "caption": "é"}).encode()
            name = "n" * 120 if number == 1 else f"k{number}"
            photo = picture(number, ("JPEG", "PNG", "WEBP")[number])
            extension = ("jpg", "png", "webp")[number]
            for ext, data in ((extension, photo), ("txt", b"words"), ("json", about), ("cls", b"1")):
                made = tarfile.TarInfo(f"{name}.{ext}")
                made.size = len(data)
                writer.addfile(made, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("damaged")
    return (folder / f"{number}.tar" for number in itertools.count())


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_random_damage_gives_findings_and_never_an_exception(
    draw: st.DataObject, whole: bytes, names: Iterator[Path]
) -> None:
    data = bytearray(whole)
    for _ in range(draw.draw(st.integers(1, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    del data[draw.draw(st.integers(0, len(data))) :]
    path = next(names)
    path.write_bytes(data)
    _, findings, totals = found(path)
    for _, count, shown in findings.by_code():
        assert count == len(shown)
        for finding in shown:
            assert finding.byte is None or 0 <= finding.byte <= len(data)
            json.dumps(finding.as_json()).encode()
    assert totals.shards == 1
