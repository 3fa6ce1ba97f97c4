"""Folders of images: by class or by split and class, images by name or content, what is not taken is counted."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.base import Collection, Item

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Picture = Callable[..., bytes]
Fill = Callable[[dict[str, int]], Path]


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for one."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def fill(anyones: Path, picture: Picture) -> Fill:
    """fill({"train/cat": 3}): a folder with so many different PNG files in each of its folders."""

    def make(counts: dict[str, int]) -> Path:
        root = anyones / "photos"
        for place, (name, count) in enumerate(counts.items()):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (root / name / f"{number}.png").write_bytes(picture(1000 * place + number))
        return root

    return make


def counted(items: Iterable[Item]) -> dict[tuple[str | None, str | None], int]:
    return dict(Counter((item.split, item.label) for item in items))


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("training", "validation", "testing"),
        ("Train", "VALID", "Test"),
        ("training_set", "dev", "test_set"),
        ("seg_train", "val2017", "eval"),
        ("TrainingData", "valid-images", "Test Images"),
    ],
)
def test_folders_of_splits_are_recognised_by_their_names(
    train: str, val: str, test: str, fill: Fill, collect: Collect
) -> None:
    folder = fill({f"{train}/cat": 3, f"{train}/dog": 2, f"{val}/cat": 1, f"{val}/dog": 1, f"{test}/dog": 2})
    collection, items = collect(kind="image_folder", folder=str(folder))
    assert collection.label_names == ("cat", "dog")
    assert counted(items) == {
        ("train", "cat"): 3, ("train", "dog"): 2, ("val", "cat"): 1, ("val", "dog"): 1, ("test", "dog"): 2
    }  # fmt: skip
    assert {item.taxonomy for item in items} == {("cat",), ("dog",)}
    assert f"{train}/ is train (5 images)" in collection.notes[0]
    assert f"{test}/ is test (2 images)" in collection.notes[0]


def test_labels_are_those_of_torchvision(fill: Fill, collect: Collect) -> None:
    from torchvision.datasets import ImageFolder

    folder = fill({"train/cat": 2, "train/dog/puppies/small": 2, "train/dog": 1, "val/cat": 1, "val/dog/old": 1})
    (folder / "train" / "dog" / "more").symlink_to(folder / "val" / "cat")
    _, items = collect(kind="image_folder", folder=str(folder))
    for split in ("train", "val"):
        theirs = ImageFolder(str(folder / split))
        expected = {(os.path.relpath(path, folder), theirs.classes[label]) for path, label in theirs.samples}
        assert {(item.name, item.label) for item in items if item.split == split} == expected


def test_given_splits_become_those_of_the_artifact_and_are_said(fill: Fill, shard: Callable[..., Artifact]) -> None:
    folder = fill({"train/cat": 12, "train/dog": 12, "val/cat": 2, "val/dog": 3, "test/cat": 4, "test/dog": 1})
    artifact = shard(source={"kind": "image_folder", "folder": str(folder)})
    index = SampleIndex.open(artifact)
    assert index.label_names == ("cat", "dog")
    assert {split: index.rows(split).size for split in ("train", "val", "test")} == {"train": 24, "val": 5, "test": 5}
    said = "the folders give the splits: train/ is train (24 images), val/ is val (5 images), test/ is test (5 images)"
    assert artifact.summary["notes"] == [said]
    assert said in artifact.read("data_card.json").decode()
    assert said in artifact.read("data_card.md").decode()
    assert said in artifact.read("data_card.html").decode()


def test_a_split_that_no_folder_gives_is_drawn(fill: Fill, shard: Callable[..., Artifact]) -> None:
    folder = fill({"train/cat": 20, "train/dog": 20, "val/cat": 2, "val/dog": 2})
    splits = shard(source={"kind": "image_folder", "folder": str(folder)}).summary
    assert splits["val"] == 4
    assert splits["test"] > 0
    assert splits["train"] + splits["test"] == 40


def test_splits_inside_each_class_are_recognised(fill: Fill, collect: Collect) -> None:
    folder = fill({"cat/train": 3, "cat/val": 1, "dog/train": 2, "dog/test": 1})
    collection, items = collect(kind="image_folder", folder=str(folder))
    assert counted(items) == {
        ("train", "cat"): 3, ("val", "cat"): 1, ("train", "dog"): 2, ("test", "dog"): 1
    }  # fmt: skip
    assert "5 train, 1 val, 1 test" in collection.notes[0]


def test_a_split_folder_in_itself_is_looked_through(fill: Fill, collect: Collect) -> None:
    folder = fill({"seg_train/seg_train/sea": 2, "seg_train/seg_train/ice": 1, "seg_test/seg_test/sea": 1})
    _, items = collect(kind="image_folder", folder=str(folder))
    assert counted(items) == {("train", "ice"): 1, ("train", "sea"): 2, ("test", "sea"): 1}


@pytest.mark.parametrize(
    "counts",
    [
        {"train": 3, "bus": 3, "plane": 3},
        {"train station": 3, "bus stop": 3},
        {"cat": 2, "dog": 2},
        {"cat/young": 2, "dog/old": 2, "training shoes": 1},
    ],
)
def test_names_that_are_classes_stay_classes(counts: dict[str, int], fill: Fill, collect: Collect) -> None:
    collection, items = collect(kind="image_folder", folder=str(fill(counts)))
    assert collection.label_names == tuple(sorted({name.partition("/")[0] for name in counts}))
    assert {item.split for item in items} == {None}
    assert not collection.notes


def test_what_may_be_a_split_or_a_class_is_refused_until_it_is_said(
    fill: Fill, refused: Refused, collect: Collect
) -> None:
    folder = fill({"train/cat": 2, "val/cat": 1, "unlabelled": 2})
    line = refused(kind="image_folder", folder=str(folder))
    assert "train/, val/ and unlabelled/" in line
    assert "layout=splits" in line
    collection, items = collect(kind="image_folder", folder=str(folder), layout="splits")
    assert counted(items) == {("train", "cat"): 2, ("val", "cat"): 1}
    assert collection.skipped.kinds == {"in no split's folder": 2}
    _, items = collect(kind="image_folder", folder=str(folder), layout="classes")
    assert counted(items) == {(None, "train"): 2, (None, "unlabelled"): 2, (None, "val"): 1}


def test_split_folders_without_classes_are_no_classes(fill: Fill, refused: Refused, collect: Collect) -> None:
    folder = fill({"train": 2, "val": 2})
    assert "holds images and no folders of classes" in refused(kind="image_folder", folder=str(folder))
    assert len(collect(kind="image_folder", folder=str(folder), layout="classes")[1]) == 4
    # A test split without labels, as competitions have it.
    (folder / "train").rename(folder / "test")
    (folder / "val").rename(folder / "later")
    (folder / "train" / "cat").mkdir(parents=True)
    (folder / "later").rename(folder / "train" / "dog")
    (folder / "train" / "dog" / "0.png").rename(folder / "train" / "cat" / "0.png")
    collection, items = collect(kind="image_folder", folder=str(folder))
    assert counted(items) == {("train", "cat"): 1, ("train", "dog"): 1}
    assert collection.skipped.kinds == {"in no class folder": 2}
    assert "layout=splits" in refused(kind="image_folder", folder=str(folder / "train"), layout="splits")


def test_a_class_that_training_lacks_is_said(fill: Fill, collect: Collect) -> None:
    folder = fill({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/Dog": 1})
    collection, _ = collect(kind="image_folder", folder=str(folder))
    assert collection.notes[0].endswith("; not in train: Dog")


def test_a_folder_without_images_is_a_class_and_changes_the_fingerprint(fill: Fill, collect: Collect) -> None:
    from pipeline.sharding.sources.image_folder import ImageFolderConfig

    folder = fill({"train/cat": 2, "val/cat": 1, "val/dog": 1})
    config = ImageFolderConfig(folder=folder)
    before = config.resolved().fingerprint
    (folder / "val" / "cow").mkdir()
    collection, items = collect(kind="image_folder", folder=str(folder))
    assert collection.label_names == ("cat", "cow", "dog")
    assert {item.label for item in items} == {"cat", "dog"}
    assert config.resolved().fingerprint != before


def test_a_folder_around_the_splits_is_refused_with_its_name(fill: Fill, refused: Refused) -> None:
    folder = fill({"data/train/cat": 2, "data/val/cat": 1})
    assert f"set folder={folder / 'data'}" in refused(kind="image_folder", folder=str(folder))


def test_a_delta_is_not_made_on_shards_in_which_train_is_a_class(
    fill: Fill, store: ArtifactStore, add: Callable[..., Artifact], picture: Picture
) -> None:
    folder = fill({"train/cat": 20, "val/cat": 20})
    before = add(store, {"kind": "image_folder", "folder": str(folder), "layout": "classes"})
    source = {"kind": "image_folder", "folder": str(folder)}
    with pytest.raises(InputError, match=r'created with source\.layout="classes"'):
        add(store, source, base=before)
    (folder / "train" / "dog").mkdir()
    for number in range(3):
        (folder / "train" / "dog" / f"{number}.png").write_bytes(picture(9000 + number))
    assert "new" not in add(store, source, base="newest").summary


_AS_NOBODY = """
import os
from pathlib import Path
from pipeline.errors import TutelageError
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.sources.image_folder import ImageFolderConfig
from pipeline.storage.local import LocalStorage
os.setgroups([]); os.setgid(65534); os.setuid(65534)
def look(what):
    try:
        print("listed", what())
    except TutelageError as error:
        print(f"{type(error).__name__}: {error}")
"""


def as_nobody(*looks: str) -> list[str]:
    """What a process without rights prints of expressions: a line each."""
    code = _AS_NOBODY + "".join(f"look(lambda: {look})\n" for look in looks)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not told.stderr, told.stderr
    lines = told.stdout.splitlines()
    assert len(lines) == len(looks)
    return lines


@pytest.mark.skipif(os.getuid() != 0, reason="gives up root's rights")
def test_a_folder_that_may_not_be_read_is_refused_and_not_empty(anyones: Path, picture: Picture) -> None:
    refused, looks = [], []
    for mode in (0o000, 0o311, 0o644):  # Not to be entered; not to be listed; listed, but for sizes and times.
        for number, place in enumerate(("cat", "dog/young", "dog/young/mine", "train/cat", "val")):
            folder = anyones / f"{mode:o}-{number}"
            for name in ("cat", "dog/young/mine") if number < 3 else ("train/cat", "val/cat"):
                (folder / name).mkdir(parents=True)
                (folder / name / "0.png").write_bytes(picture(number))
            (folder / place).chmod(mode)
            refused.append(folder / place)
            looks.append(f"ImageFolderConfig(folder=Path({str(folder)!r})).resolved()")
    for folder, line in zip(refused, as_nobody(*looks), strict=True):
        assert line.startswith(f"InputError: {folder}")
        assert "cannot be listed (Permission denied)" in line


@pytest.mark.skipif(os.getuid() != 0, reason="gives up root's rights")
def test_every_listing_refuses_what_it_may_not_read(fill: Fill) -> None:
    folder = fill({"cat": 2, "dog": 2})
    (folder / "dog").chmod(0)
    for line in as_nobody(
        f"addresses.find({str(folder)!r}, ('.png',))",
        f"addresses.find({str(folder)!r} + '/*/*.png', ('.png',))",
        f"addresses.find({str(folder)!r} + '/**/0.png', ('.png',))",
        f"addresses.find({str(folder)!r} + '/{{cat,dog}}/*.png', ('.png',))",
        f"list(LocalStorage(Path({str(folder)!r})).list())",
    ):
        assert line.startswith(f"InputError: {folder / 'dog'}: cannot be listed (Permission denied)")


@pytest.mark.skipif(os.getuid() != 0, reason="gives up root's rights")
def test_a_folder_that_may_be_listed_and_not_entered_is_refused(fill: Fill) -> None:
    folder = fill({"cat/a": 2, "dog/a": 2})
    (folder / "dog").chmod(0o744)
    (line,) = as_nobody(f"addresses.find({str(folder)!r} + '/*/*/*.png', ('.png',))")
    assert line.startswith(f"InputError: {folder / 'dog'}")
    assert "cannot be listed (Permission denied)" in line


def test_two_stars_find_what_glob_finds_behind_links_too_and_end(fill: Fill, tmp_path: Path) -> None:
    folder = fill({"cat/a": 2, "dog": 1, ".hidden": 1})
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "9.png").write_bytes(b"")
    (folder / "more").symlink_to(tmp_path / "disk")
    for pattern in ("**/*.png", "**", "**/a/*"):
        wanted = glob.glob(f"{folder}/{pattern}", recursive=True)
        assert [file.url for file in addresses.find(f"{folder}/{pattern}", (".png",))] == sorted(
            name for name in wanted if os.path.isfile(name)
        )
    (folder / "cat" / "up").symlink_to(folder)
    assert len(addresses.find(f"{folder}/**/*.png", (".png",))) == 4


@pytest.mark.parametrize("leads", [".", "..", "../.."])
def test_a_link_among_the_classes_to_a_folder_above_is_no_class(leads: str, fill: Fill, collect: Collect) -> None:
    folder = fill({"cat": 2, "dog": 2})
    (folder / "all").symlink_to(folder / leads)
    collection, items = collect(kind="image_folder", folder=str(folder))
    assert counted(items) == {(None, "cat"): 2, (None, "dog"): 2}
    assert collection.skipped.kinds == {"link to a folder above": 1}


def test_a_disk_that_fails_stops_the_run_and_no_image_is_taken_for_deleted(
    fill: Fill, store: ArtifactStore, add: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch, picture: Picture
) -> None:
    folder = fill({"cat": 20, "dog": 20})
    first = add(store, folder)
    (folder / "cat" / "new.png").write_bytes(picture(77))
    scan = os.scandir

    def failing(path: Any) -> Any:
        if str(path).endswith("/dog"):
            raise OSError(5, "Input/output error", str(path))
        return scan(path)

    with monkeypatch.context() as broken:
        broken.setattr(os, "scandir", failing)
        with pytest.raises(InputError, match=r"dog: cannot be listed \(Input/output error\)"):
            add(store, folder, base="newest")
    assert [artifact.name for artifact in store.list("shard-dataset")] == [first.name]
    after = add(store, folder, base="newest")
    assert (after.summary["new"], after.summary["removed"]) == (1, 0)


def test_a_class_behind_a_link_to_nothing_is_refused(fill: Fill, refused: Refused, tmp_path: Path) -> None:
    folder = fill({"cat": 2, "dog": 2})
    (folder / "horse").symlink_to(tmp_path / "unmounted")
    assert f"{folder / 'horse'}: a symbolic link to a missing path" in refused(kind="image_folder", folder=str(folder))


def test_images_are_taken_by_content_where_the_extension_is_unknown_and_the_rest_is_counted(
    fill: Fill, shard: Callable[..., Artifact], picture: Picture
) -> None:
    folder = fill({"cat": 0, "dog": 20})
    cat = folder / "cat"
    taken = {
        "a.jpe": picture(1, "JPEG"), "b.jfif": picture(2, "JPEG"), "c.JPG": picture(3, "JPEG"),
        "d.ppm": picture(4, "PPM"), "e.pgm": picture(5, "PPM", "L"), "f.pbm": picture(6, "PPM", "1"),
        "g.avif": picture(7, "AVIF"), "h.jp2": picture(8, "JPEG2000"), "i.j2k": picture(9, "JPEG2000"),
        "j": picture(10), "k.dat": picture(11, "WEBP"), "l.png.bak": picture(12), "m.1": picture(13, "GIF"),
        "n.qoi": picture(14, "QOI"), "o.dib": picture(15, "BMP"), "p.TIFF": picture(16, "TIFF"),
        "q.heic": picture(17, "AVIF"), "r.jpg!large": picture(18, "JPEG"), "s.png": picture(19, "JPEG"),
    }  # fmt: skip
    heif = b"\0\0\0\x18ftyp"
    passed = {
        "1.heic": heif + b"heic\0\0\0\0mif1heic", "2.heif": heif + b"mif1\0\0\0\0mif1heic", "3.svg": b"<svg/>",
        "4.ai": b"%!PS-Adobe", "5.eps": b"%!PS-Adobe", "6": b"", "7.txt": b"", "8.CR2": b"II*", "Thumbs.db": b"",
        ".DS_Store": b"", "._a.jpg": b"", "9.mp4": heif + b"isom",
    }  # fmt: skip
    for name, data in {**taken, **passed}.items():
        (cat / name).write_bytes(data)
    (cat / ".thumbs").mkdir()
    (cat / ".thumbs" / "a.png").write_bytes(picture(99))
    os.mkfifo(cat / "pipe")
    (cat / "up").symlink_to(folder)
    (cat / "gone.txt").symlink_to(folder / "nowhere")
    (folder / "__MACOSX").mkdir()
    (folder / "readme.md").write_text("")
    (folder / "loose.png").write_bytes(picture(100))
    artifact = shard(source={"kind": "image_folder", "folder": str(folder)})
    assert artifact.summary["train"] + artifact.summary["val"] + artifact.summary["test"] == 20 + len(taken)
    said = artifact.summary["passed_over"]
    assert said["per_kind"] == {
        "hidden": 4, ".ai": 1, ".cr2": 1, ".eps": 1, ".heic": 1, ".heif": 1, ".md": 1, ".mp4": 1, ".svg": 1, ".txt": 1,
        "__MACOSX": 1, "broken link": 1, "in no class folder": 1, "link to a folder above": 1, "no extension": 1,
        "no regular file": 1,
    }  # fmt: skip
    assert said["count"] == sum(said["per_kind"].values())
    assert "cat/1.heic" in said["first"]
    for name in ("data_card.json", "data_card.md", "data_card.html"):
        assert ".heic" in artifact.read(name).decode(), name


def test_a_phones_folder_names_what_is_left_out_and_what_to_do(
    fill: Fill, shard: Callable[..., Artifact], picture: Picture
) -> None:
    folder = fill({"Café": 0, "Küche am See": 20})
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    files = {
        **{f"IMG_{number}.JPG": picture(number, "JPEG") for number in range(9)},
        "IMG_20.HEIC": heic, "IMG_20.MOV": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "IMG_20.AAE": b"<?xml",
        # Without its extension it would be read as a TIFF, whose first page is a thumbnail.
        "DSC_1.NEF": picture(40, "TIFF"),
        **{f"._IMG_{number}.JPG": b"\0\5\x16\7" for number in range(25)},
        "sent.jpg": heic + b"1", "torn.tif": b"II*\0\0", "filmed.jpg": b"\0\0\0\x18ftypmp42",
    }  # fmt: skip
    for name, data in files.items():
        (folder / "Café" / name).write_bytes(data)
    artifact = shard(source={"kind": "image_folder", "folder": str(folder)}, max_unreadable_share=0.1)
    card = json.loads(artifact.read("data_card.json"))
    assert card["samples"] == 29
    assert {one["name"]: one["reason"] for one in card["unreadable"]["first"]} == {
        "Café/sent.jpg": "not an image that is read: it is a HEIC photo: convert it to JPEG",
        "Café/filmed.jpg": "not an image that is read: it is a video",
        "Café/torn.tif": "damaged: it begins as TIFF, and its header cannot be read",
    }
    first = card["passed_over"]["first"]
    assert first[:4] == [f"Café/{name}" for name in ("DSC_1.NEF", "IMG_20.AAE", "IMG_20.HEIC", "IMG_20.MOV")]
    assert first[4].startswith("Café/._IMG")
    for name in ("data_card.md", "data_card.html"):
        assert "1 .heic, 1 .nef are photos in formats that are not read" in artifact.read(name).decode(), name


def test_no_known_extension_is_looked_into(fill: Fill, collect: Collect, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.sharding.sources import image_listing

    folder = fill({"cat": 5})
    (folder / "cat" / "b.txt").write_text("")
    (folder / "cat" / "c.weights").write_bytes(b"\0")
    looked: list[str] = []
    begins = image_listing._begins_as_image.__wrapped__

    def counting(path: str, size: int, changed: int) -> bool:
        looked.append(path)
        return bool(begins(path, size, changed))

    monkeypatch.setattr(image_listing, "_begins_as_image", counting)
    collect(kind="image_folder", folder=str(folder))
    assert {Path(path).name for path in looked} == {"c.weights"}


def test_a_broken_link_is_a_quarantined_sample(fill: Fill, shard: Callable[..., Artifact], collect: Collect) -> None:
    folder = fill({"cat": 20, "dog": 20})
    (folder / "cat" / "a7.jpg").symlink_to(folder / "gone.jpg")
    (folder / "dog" / "loop.png").symlink_to("loop.png")
    (folder / "dog" / "tree.png").symlink_to(folder / "dog" / "0.png" / "x")
    artifact = shard(source={"kind": "image_folder", "folder": str(folder)}, max_unreadable_share=0.1)
    card = json.loads(artifact.read("data_card.json"))
    assert [one["name"] for one in card["unreadable"]["first"]] == ["cat/a7.jpg", "dog/loop.png", "dog/tree.png"]
    assert "symbolic link to a file that is not there" in card["unreadable"]["first"][0]["reason"]


def test_a_new_file_that_is_not_taken_is_news(fill: Fill, collect: Collect) -> None:
    from pipeline.sharding.sources.image_folder import ImageFolderConfig

    folder = fill({"cat": 2, "dog": 2})
    config = ImageFolderConfig(folder=folder)
    before = config.resolved().fingerprint
    (folder / "cat" / "notes.txt").write_text("")
    assert config.resolved().fingerprint == before
    (folder / "cat" / "new.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert config.resolved().fingerprint != before


@pytest.mark.parametrize(
    "name",
    [
        "two\nlines",
        "a\ttab\rand more",
        "$x^$ 50%",
        "\u202eturned",
        "a" * 200,
        b"caf\xe9".decode("utf-8", "surrogateescape"),
    ],
)
def test_a_label_that_is_only_drawn_stops_nothing(name: str, fill: Fill, shard: Callable[..., Artifact]) -> None:
    folder = fill({name: 12, "cat": 12})
    odd = folder.rename(folder.with_name(f"odd {name}"[:200]))
    artifact = shard(source={"kind": "image_folder", "folder": str(odd)})
    assert artifact.summary["labels"] == 2
    assert artifact.read("contact_sheet.png").startswith(b"\x89PNG")
    labels = json.loads(artifact.read("labels.json"))
    assert name in labels or "caf\ufffd" in labels
