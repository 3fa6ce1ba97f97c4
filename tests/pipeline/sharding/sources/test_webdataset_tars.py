"""Foreign tars, written by webdataset itself, become samples by its own rule; ours come back as they were."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import stat
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.tar_listing import MemberRoles, tar_samples

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Reason = Callable[[Item], str]
Picture = Callable[..., bytes]


def write_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            made = tarfile.TarInfo(name)
            made.size = len(data)
            tar.addfile(made, io.BytesIO(data))
    return path


def img2dataset(folder: Path, picture: Picture, shards: int = 2, each: int = 10) -> Path:
    """A folder as img2dataset leaves it: 00000.tar, ... with .jpg .txt .json."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with webdataset.TarWriter(str(folder / f"{shard:05d}.tar")) as tar:
            for number in range(each):
                key = f"{shard:05d}{number:04d}"
                about = {"url": f"https://example.org/{key}.jpg", "caption": f"caption {key}", "key": key}
                image = picture(100 * shard + number, "JPEG")
                tar.write({"__key__": key, "jpg": image, "txt": f"caption {key}", "json": about})
    return folder


def test_a_folder_of_img2dataset_becomes_our_shards(
    tmp_path: Path, shard: Callable[..., Artifact], picture: Picture
) -> None:
    folder = img2dataset(tmp_path / "laion", picture)
    artifact = shard(source={"kind": "webdataset", "tars": str(folder), "licence": "CC-BY-4.0"})
    index = SampleIndex.open(artifact)
    assert sorted(index.key(id) for id in index.rows()) == [f"{s:05d}{n:04d}" for s in range(2) for n in range(10)]
    foreign = {
        sample["__key__"]: sample["jpg"]
        for tar in sorted(folder.glob("*.tar"))
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False)
    }
    read: dict[str, bytes] = {}
    for name in index.shard_names:
        for sample in webdataset.WebDataset(str(artifact.path(name)), shardshuffle=False):
            read[sample["__key__"]] = sample["jpg"]
            assert sample["txt"].decode() == f"caption {sample['__key__']}"
            assert json.loads(sample["json"])["licence"] == "CC-BY-4.0"
    assert read == foreign


def test_our_own_tars_are_read_with_all_captions_labels_and_splits(
    tmp_path: Path, shard: Callable[..., Artifact], picture: Picture
) -> None:
    table = tmp_path / "list.jsonl"
    lines = []
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        captions = [f"first {number}", f"second {number}"]
        lines.append(json.dumps({"path": f"{number}.png", "label": "ab"[number % 2], "captions": captions}))
    table.write_text("\n".join(lines))
    source = {"kind": "manifest", "manifest": str(table), "label_column": "label", "caption_columns": ["captions"]}
    first = SampleIndex.open(ours := shard(source=source))
    again = SampleIndex.open(
        shard(
            into=ArtifactStore.open(str(tmp_path / "other")),
            split={"val_share": 0, "test_share": 0},
            source={
                "kind": "webdataset",
                "tars": str(ours.path("shards/train-00000.tar").parent),
                "captions": "json",
                "caption_field": "captions",
                "labels": "json",
                "split_by_name": True,
            },
        )
    )

    def known(index: SampleIndex) -> dict[str, Any]:
        return {
            index.key(id): (index.captions(id), int(index.labels[id]), int(index.splits[id]), index.content_hash(id))
            for id in index.rows()
        }

    assert len(first) == 30
    assert known(first) == known(again)
    assert first.label_names == again.label_names == ("a", "b")


def test_grouping_is_that_of_webdataset(tmp_path: Path) -> None:
    names = [
        "a/b.c/one.tar.jpg",
        "a/b.c/one.seg.png",
        "a/b.c/one.JPG",
        "a/b.c/two.jpg",
        "two.jpg",
        "no-extension",
        ".hidden.jpg",
        "__MACOSX__/x.jpg",
        "dir.with.dots/three.cls",
        "dir.with.dots/three.jpg",
    ]
    tar = write_tar(tmp_path / "t.tar", *[(name, b"0") for name in names])
    theirs = [sample["__key__"] for sample in webdataset.WebDataset(str(tar), shardshuffle=False)]
    assert [sample.key for sample in tar_samples(stat(str(tar)), MemberRoles())] == theirs


def test_keys_with_dots_repeated_keys_and_missing_members(
    tmp_path: Path, collect: Collect, reason: Reason, picture: Picture
) -> None:
    one, two, three, four = (picture(n, "JPEG") for n in range(4))
    write_tar(
        tmp_path / "tars" / "0.tar",
        ("v1.2/a.jpg", one),
        ("v1.2/a.txt", b"in a folder with dots"),
        ("b.jpg", two),
        ("b.txt", b"b"),
        ("b.jpg", three),
        ("b.txt", b"b again"),
        ("c.txt", b"no image"),
        ("c.json", b"{}"),
        ("d.png", four),
        ("e.jpg", one),
        ("e.txt", b"\xff\xfe not text"),
        ("b.jpg", four),
    )
    _, items = collect(kind="webdataset", tars=str(tmp_path / "tars"))
    assert [item.key for item in items] == ["v1.2/a", "b", "b", "c", "d", "e", "b"]
    assert items[0].captions == ("in a folder with dots",)
    assert [items[n].read() for n in (0, 1, 2, 4, 6)] == [one, two, three, four, four]
    assert (items[1].captions, items[2].captions, items[4].captions) == (("b",), ("b again",), ())
    assert reason(items[3]) == "no image among its members (txt, json)"
    assert reason(items[5]) == "its .txt is not UTF-8"


def test_captions_are_lines_or_a_field_and_labels_are_numbers_or_a_field(
    tmp_path: Path, collect: Collect, reason: Reason, picture: Picture
) -> None:
    about = {"captions": ["one", "two"], "class": "cat"}
    tar = write_tar(
        tmp_path / "t.tar",
        ("a.jpg", picture(1, "JPEG")),
        ("a.cls", b"1\n"),
        ("a.txt", "erste Zeile\n\nzweite: Größe\n".encode()),
        ("a.json", json.dumps(about).encode()),
        ("b.jpg", picture(2, "JPEG")),
        ("b.cls", b"10"),
        ("b.json", b"{broken"),
    )
    lines, items = collect(kind="webdataset", tars=str(tar), captions="lines")
    assert items[0].captions == ("erste Zeile", "zweite: Größe")
    # Numbers in their order, not "1", "10", "2".
    assert (lines.label_names, [item.label for item in items]) == (("1", "10"), ["1", "10"])
    field, items = collect(
        kind="webdataset", tars=str(tar), captions="json", caption_field="captions", labels="json", label_field="class"
    )
    assert (items[0].captions, items[0].label, field.label_names) == (("one", "two"), "cat", ("cat",))
    assert "its .json is not JSON" in reason(items[1])
    long = write_tar(tmp_path / "long.tar", ("a.jpg", picture(3, "JPEG")), ("a.json", b'{"class": %s}' % (b"9" * 5000)))
    _, items = collect(kind="webdataset", tars=str(long), labels="json", label_field="class")
    assert reason(items[0]) == "its .json is not JSON (a number of 5,000 digits)"
    names = tmp_path / "names.txt"
    names.write_text("dog\ncat\n")
    named, items = collect(kind="webdataset", tars=str(tar), class_names=str(names))
    assert (named.label_names, items[0].label) == (("dog", "cat"), "cat")
    assert reason(items[1]) == "label '10' is no class of class_names"


def test_the_members_of_captions_and_labels_can_be_named(
    tmp_path: Path, collect: Collect, refused: Refused, reason: Reason, picture: Picture
) -> None:
    members = [
        ("x.input.jpg", picture(1, "JPEG")),
        ("x.outputs.txt", b"a cat"),
        ("x.class.json", b'{"name": "cat"}'),
        ("y.input.jpg", picture(2, "JPEG")),
        ("y.outputs.txt", b"a dog\non a mat"),
        ("y.class.json", b'{"name": "dog"}'),
        ("z.input.jpg", picture(3, "JPEG")),
        ("z.outputs.txt", b"\xff\xfe"),
    ]
    tar = str(write_tar(tmp_path / "a.tar", *members))
    named = {"kind": "webdataset", "tars": tar, "images": ["input.jpg"], "labels": "json", "label_field": "name"}
    collection, items = collect(
        **named, captions="lines", caption_member=".outputs.TXT", label_member="class.json", in_place=True
    )
    assert [(item.key, item.captions, item.label) for item in items[:2]] == [
        ("x", ("a cat",), "cat"),
        ("y", ("a dog", "on a mat"), "dog"),
    ]
    assert collection.label_names == ("cat", "dog")
    assert items[0].read() == picture(1, "JPEG")
    assert reason(items[2]) == "its .outputs.txt is not UTF-8"
    _, items = collect(**named, captions="json", caption_field="name", caption_member="class.json")
    assert [item.captions for item in items] == [("cat",), ("dog",), ()]
    line = refused(**named, caption_member="output.txt")
    assert line.startswith(f"caption_member: no sample of {tar} has a text in a member that ends with .output.txt;")
    assert "label_member: no sample" in refused(**named, label_member="class")


def test_a_read_travels_to_another_process(tmp_path: Path, collect: Collect, photos: dict[str, bytes]) -> None:
    tar = write_tar(tmp_path / "t.tar", *[(f"{name}.jpg", data) for name, data in photos.items()])
    _, items = collect(kind="webdataset", tars=str(tar))
    assert [pickle.loads(pickle.dumps(item)).read() for item in items] == list(photos.values())


def test_tars_that_did_not_change_are_not_gone_through_again(
    tmp_path: Path, collect: Collect, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = img2dataset(tmp_path / "laion", picture, shards=3, each=2)
    collect(kind="webdataset", tars=str(folder))
    gone_through: list[str] = []
    monkeypatch.setattr(
        "pipeline.sharding.sources.tar_listing.tar_samples",
        lambda tar, *more: gone_through.append(tar.name) or tar_samples(tar, *more),  # type: ignore[func-returns-value]
    )
    assert len(collect(kind="webdataset", tars=str(folder))[1]) == 6
    assert gone_through == []
    write_tar(folder / "00001.tar", ("new.jpg", picture(5, "JPEG")))
    assert len(collect(kind="webdataset", tars=str(folder))[1]) == 5
    assert gone_through == ["00001.tar"]


def test_patterns_name_tars(tmp_path: Path, collect: Collect, refused: Refused, picture: Picture) -> None:
    folder = img2dataset(tmp_path / "laion", picture, shards=3, each=1)
    assert len(collect(kind="webdataset", tars=f"{folder}/{{00000..00001}}.tar")[1]) == 2
    assert len(collect(kind="webdataset", tars=f"{folder}/*2.tar")[1]) == 1
    assert "00003.tar: no such file" in refused(kind="webdataset", tars=f"{folder}/{{00000..00003}}.tar")
    assert "matches nothing" in refused(kind="webdataset", tars=f"{folder}/*.tgz")
    assert "a brace is not closed" in refused(kind="webdataset", tars=f"{folder}/{{00000.tar")


def test_bad_tars_are_refused_in_one_line(tmp_path: Path, refused: Refused, picture: Picture) -> None:
    hostile = write_tar(tmp_path / "hostile" / "0.tar", ("a.jpg", picture(1, "JPEG")), ("../../b.jpg", b"x"))
    line = refused(kind="webdataset", tars=str(hostile))
    assert f"{hostile}, member '../../b.jpg' at byte" in line
    assert "a name that leaves the folder" in line
    cut = tmp_path / "cut.tar"
    cut.write_bytes(hostile.read_bytes()[:700])
    assert "are left: the archive is cut" in refused(kind="webdataset", tars=str(cut))
    squeezed = tmp_path / "squeezed" / "0.tgz"
    squeezed.parent.mkdir()
    with tarfile.open(squeezed, "w:gz") as tar:
        tar.add(hostile, "a.jpg")
    assert "compressed (gzip)" in refused(kind="webdataset", tars=str(squeezed.parent))
    (tmp_path / "empty").mkdir()
    assert "holds no file that ends with .tar" in refused(kind="webdataset", tars=str(tmp_path / "empty"))
    assert "no such file" in refused(kind="webdataset", tars=str(tmp_path / "nowhere"))
    assert "web addresses are not read" in refused(kind="webdataset", tars="https://example.org/00000.tar")
    assert not list(tmp_path.rglob("b.jpg"))


def pairs(picture: Picture, first: int, count: int) -> list[tuple[str, bytes]]:
    """Members of `count` samples, an image and a caption each."""
    numbers = range(first, first + count)
    return [one for n in numbers for one in ((f"{n:04}.jpg", picture(n, "JPEG")), (f"{n:04}.txt", b"a thing"))]


@pytest.mark.parametrize(
    ("make", "what", "samples", "unreadable"),
    [
        # Two tars joined by cat.
        (lambda one, two: one + two, "bytes follow from here", 10, 0),
        # The first without its whole mark, as `tar` leaves it after a record size of one block.
        (lambda one, two: one.rstrip(b"\0") + bytes(-len(one.rstrip(b"\0")) % 512 + 512) + two, "follow", 10, 0),
        # Cut between two members, inside padding, inside a header and inside an image.
        (lambda one, two: one[: header(one, "0004.txt")], "without its end mark", 5, 0),
        (lambda one, two: one[: header(one, "0004.txt") + 512 + 7 + 100], "without its end mark", 5, 0),
        (lambda one, two: one[: header(one, "0003.jpg") + 200], "ends inside a header", 3, 0),
        (lambda one, two: one[: header(one, "0003.jpg") + 700], "are left: the archive is cut", 3, 1),
        (lambda one, two: one[: header(one, "0003.txt") + 515], "are left: the archive is cut", 3, 1),
        # Bytes behind the mark that are no tar.
        (lambda one, two: one + b"garbage" * 200, "bytes follow from here", 5, 0),
        # A joined tar that is cut too.
        (lambda one, two: one + two[: header(two, "0012.jpg") + 700], "bytes follow from here", 7, 1),
    ],
)
def test_a_tar_with_an_odd_end_is_refused_or_read_to_its_end(
    make: Callable[[bytes, bytes], bytes],
    what: str,
    samples: int,
    unreadable: int,
    tmp_path: Path,
    collect: Collect,
    refused: Refused,
    picture: Picture,
) -> None:
    one = write_tar(tmp_path / "one.tar", *pairs(picture, 0, 5)).read_bytes()
    two = write_tar(tmp_path / "two.tar", *pairs(picture, 10, 5)).read_bytes()
    tar = tmp_path / "tars" / "0.tar"
    tar.parent.mkdir()
    tar.write_bytes(make(one, two))
    write_tar(tmp_path / "tars" / "1.tar", *pairs(picture, 20, 2))
    source = {"kind": "webdataset", "tars": str(tar.parent)}
    line = refused(**source)
    assert f"{tar}, " in line
    assert what in line
    assert "set ends=read" in line
    collection, items = collect(**source, ends="read")
    problems = [item for item in items if item.read.func is not addresses.read]  # type: ignore[attr-defined]
    assert (len(items) - len(problems) - 2, len(problems)) == (samples, unreadable)
    for item in items:
        if item not in problems:
            assert item.read() == picture(int(item.key or ""), "JPEG")
    assert "1 of 2 tars were read although their end is faulty (0.tar: " in collection.notes[0]
    assert "..." not in collection.notes[0]
    # What was listed before says it again.
    assert collect(**source, ends="read")[0].notes == collection.notes


def header(tar: bytes, name: str) -> int:
    """Where a member's header begins."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return opened.getmember(name).offset


def test_the_end_mark_may_be_cut_and_may_be_long(tmp_path: Path, collect: Collect, picture: Picture) -> None:
    whole = write_tar(tmp_path / "tars" / "0.tar", *pairs(picture, 0, 3)).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for size in (end + 512, end + 700, end + 1024):
        (tmp_path / "tars" / f"{size}.tar").write_bytes(whole[:size])
    (tmp_path / "tars" / "long.tar").write_bytes(whole + bytes(3_000_000))
    collection, items = collect(kind="webdataset", tars=str(tmp_path / "tars"))
    assert len(items) == 15
    assert collection.notes == ()


def test_images_whose_keys_have_dots_are_each_counted_and_named(
    tmp_path: Path, collect: Collect, reason: Reason, picture: Picture
) -> None:
    write_tar(tmp_path / "0.tar", *[(f"IMG.{n:05}.jpg", picture(n, "JPEG")) for n in range(24)])
    _, items = collect(kind="webdataset", tars=str(tmp_path))
    assert [item.key for item in items] == [f"IMG.{n:05}.jpg" for n in range(24)]
    assert "its key ends at the first dot, so that its image's extension is '00023.jpg'" in reason(items[23])
    many = write_tar(tmp_path / "many.tar", *[(f"IMG.{n}.part.bin", b"0") for n in range(9000)])
    _, items = collect(kind="webdataset", tars=str(many))
    assert len(reason(items[0])) < 500
    assert "and 8,992 more" in reason(items[0])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(600), "a zip archive: unpack it"),
        (b"<!DOCTYPE html><html><title>Sign in</title>" + b" " * 600, "a web page"),
        (b"\xff\xd8\xff\xe0" + bytes(600), "an image (JPEG)"),
        ("key,label\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_what_goes_under_the_name_of_a_tar_is_recognised(
    content: bytes, what: str, tmp_path: Path, refused: Refused, picture: Picture
) -> None:
    (tmp_path / "0.tar").write_bytes(content)
    assert what in refused(kind="webdataset", tars=str(tmp_path / "0.tar"))
    # Not only the first of several.
    write_tar(tmp_path / "tars" / "0.tar", *pairs(picture, 0, 2))
    (tmp_path / "tars" / "1.tar").write_bytes(content)
    assert what in refused(kind="webdataset", tars=str(tmp_path / "tars"))


def test_a_tar_that_was_cut_after_it_was_listed_is_told(
    tmp_path: Path, collect: Collect, reason: Reason, picture: Picture
) -> None:
    tar = write_tar(tmp_path / "t.tar", ("a.jpg", picture(1, "JPEG")))
    _, items = collect(kind="webdataset", tars=str(tar))
    os.truncate(tar, 600)
    assert "the file ends early (88 of" in reason(items[0])


@pytest.mark.servers
def test_tars_in_s3_are_read_in_place(
    s3_url: str, tmp_path: Path, collect: Collect, refused: Refused, picture: Picture
) -> None:
    from pipeline.storage import open_storage

    folder = img2dataset(tmp_path / "laion", picture, shards=2, each=4)
    storage = open_storage(s3_url)
    for tar in folder.glob("*.tar"):
        storage.upload(tar, f"laion/{tar.name}")
    _, here = collect(kind="webdataset", tars=str(folder))
    for pattern in ("laion", "laion/{00000..00001}.tar", "laion/*.tar"):
        _, there = collect(kind="webdataset", tars=f"{s3_url}/{pattern}")
        assert [item.read() for item in there] == [item.read() for item in here]
        assert [item.captions for item in there] == [item.captions for item in here]
    assert "00002.tar: no such object (1 of the 3" in refused(
        kind="webdataset", tars=f"{s3_url}/laion/{{00000..00002}}.tar"
    )
    assert "no such object" in refused(kind="manifest", manifest=f"{s3_url}/no.csv", label_column="label")
    # A manifest in S3 whose images lie in S3: relative to it, and by their whole address.
    storage.write("pairs/a.png", picture(1))
    storage.write("pairs/list.csv", f"path,caption\na.png,one\n{s3_url}/pairs/a.png,two\ngone.png,three\n".encode())
    _, items = collect(kind="manifest", manifest=f"{s3_url}/pairs/list.csv", caption_columns=["caption"])
    assert [item.read() for item in items[:2]] == [picture(1)] * 2
    with pytest.raises(FileNotFoundError):
        items[2].read()


def test_images_of_rarer_names_are_taken_and_members_of_no_sample_are_counted(
    tmp_path: Path, collect: Collect, picture: Callable[..., bytes], reason: Reason
) -> None:
    members = {
        "a.jfif": picture(1, "JPEG"), "a.txt": b"one", "b.avif": picture(2, "AVIF"), "c.dat": picture(3, "WEBP"),
        "d.npy": b"\x93NUMPY", "d.image": picture(4), "e.heic": b"\0\0\0\x18ftypheic", "e.txt": b"five",
        "README": b"hello", "._a.jfif": b"", "1.0.jfif": picture(5, "JPEG"), "1.1.jfif": picture(6, "JPEG"),
    }  # fmt: skip
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "tars" / "0.tar.md5").write_text("")
    (tmp_path / "tars" / "stats").write_text("")
    (tmp_path / "tars" / "loose.png").write_bytes(picture(7))
    collection, items = collect(kind="webdataset", tars=str(tmp_path / "tars"))
    assert [item.read() for item in items[:4]] == [members[name] for name in ("a.jfif", "b.avif", "c.dat", "d.image")]
    assert "no image among its members (heic, txt)" in reason(items[4])
    assert [reason(item).partition(",")[0] for item in items[5:]] == ["its key ends at the first dot"] * 2
    assert collection.skipped.kinds == {"no extension": 2, ".md5": 1, ".png": 1, "hidden": 1}
    assert "0.tar: README" in collection.skipped.names
    # Extensions that were named are believed.
    _, items = collect(kind="webdataset", tars=str(tmp_path / "tars"), images=["dat"])
    assert [item.key for item in items if "no image" not in reason_or_none(item)] == ["c"]


def reason_or_none(item: Item) -> str:
    try:
        item.read()
    except OSError as error:
        return str(error)
    return ""
