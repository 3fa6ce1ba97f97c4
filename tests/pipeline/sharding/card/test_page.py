"""The card as a page: everything is on it, nothing is fetched, hostile words stay words, its bytes are the data's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.sharding.card.data_card import groups_phrase
from pipeline.sharding.card.page.charts import curve, histogram_bins
from pipeline.sharding.card.page.classes import ClassPictures, balance_section
from pipeline.sharding.card.page.gallery import Gallery, by_hash, rows_by_label
from pipeline.sharding.card.page.images_and_captions import CaptionExamples, in_bytes
from pipeline.sharding.card.page.left_out import reason_kind
from pipeline.sharding.format.index import SampleRow
from tests.small_shards import index_of

Shard = Callable[..., Artifact]
Picture = Callable[..., bytes]
SECTIONS = ["splits", "classes", "samples", "images", "captions", "duplicates", "quarantine", "licences", "options"]
HOSTILE = "<script>alert('label')</script>"
HOSTILE_CAPTION = '"><img src=x onerror=alert(1)> ]]> & so on'
_VOID = {"img", "meta", "br", "hr", "link"}


class Page(HTMLParser):
    """What is on a page: sections, references, texts; and that its elements are closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.references: list[str] = []
        self.elements: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.elements.append(tag)
        self.references += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]
        assert not [name for name in given if name.startswith("on")]
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = given["id"] or ""
            self.sections[self._section] = ""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._section:
            self.sections[self._section] += f"{data} "

    def words(self, section: str) -> str:
        return " ".join(self.sections[section].split())


@pytest.fixture
def photos(tmp_path: Path, picture: Picture) -> dict[str, Any]:
    """A manifest with a hostile label and caption, duplicates, two unreadable files and an image without a label."""
    rows = []
    for number in range(48):
        data = picture(number, ("PNG", "JPEG")[number % 2], size=(40 + number, 30))
        if number in (20, 21):
            data = picture(18, size=(58, 30))
        if number == 30:
            data = b"not an image"
        if number == 31:
            data = data[:200]
        (tmp_path / f"{number}.img").write_bytes(data)
        label = None if number == 47 else (HOSTILE, "cat", "dog")[number % 3]
        captions = [HOSTILE_CAPTION, "plain words"][: number % 3]
        rows.append({"path": f"{number}.img", "label": label, "captions": captions})
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return {
        "source": {
            "kind": "manifest",
            "manifest": str(tmp_path / "list.jsonl"),
            "label_column": "label",
            "caption_columns": ["captions"],
        },
        "max_unreadable_share": 0.1,
        "images": {"max_side": 64},
    }


def test_the_page_has_every_section_and_refers_to_nothing(shard: Shard, photos: dict[str, Any]) -> None:
    text = shard(**photos).read("data_card.html").decode()
    page = Page(text)
    assert list(page.sections) == SECTIONS
    assert [one for one in page.references if not one.startswith(("#", "data:image/"))] == []
    assert not re.search(r"url\(|@import|<base|<iframe", text)
    assert "script" not in page.elements
    assert len(text) < 300_000


def test_hostile_labels_and_captions_stay_words(shard: Shard, photos: dict[str, Any]) -> None:
    text = shard(**photos).read("data_card.html").decode()
    page = Page(text)
    assert HOSTILE in page.words("classes")
    assert HOSTILE in page.words("samples")
    assert HOSTILE_CAPTION in page.words("captions")
    assert "<script" not in text
    assert "<img src=x" not in text


def test_the_page_tells_what_the_counts_tell(shard: Shard, photos: dict[str, Any]) -> None:
    artifact = shard(**photos)
    page, card = Page(artifact.read("data_card.html").decode()), json.loads(artifact.read("data_card.json"))
    for split, count in card["splits"].items():
        assert f"{split} {count} (" in page.words("splits")
    assert "3 classes; the largest has 15 images" in page.words("classes")
    assert "Images without a label: 1." in page.words("classes")
    assert "no label 1 image" in page.words("samples")
    assert f"{card['captions']} captions" in page.words("captions")
    quarantine = page.words("quarantine")
    assert f"2 items, {2 / (card['samples'] + 2):.2%} of all" in quarantine
    assert "not an image of a format that is read (N bytes) 1" in quarantine
    assert "30.img" in quarantine
    assert "31.img" in quarantine
    assert "images with the same bytes as another image 2" in page.words("duplicates")
    assert ", 2 unreadable, 1 duplicate removed; note: " in artifact.summary["headline"]
    assert sum(card["splits"].values()) == 48 - 2 - 1
    assert "3 times" in page.words("duplicates")
    assert "images.max_side 64" in page.words("options")
    assert re.search(r"Stored unchanged, except those that were re-encoded: \d+ scaled", page.words("images"))


def test_groups_are_told_where_they_are_not_single_images() -> None:
    assert groups_phrase({"samples": 12, "content_groups": 12}) == ""
    assert groups_phrase({"samples": 12, "content_groups": 3}) == " in 3 content groups (images of the same content)"


def test_dropped_duplicates_are_told_with_the_one_that_stayed(shard: Shard, tmp_path: Path, picture: Picture) -> None:
    folder = tmp_path / "pets"
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            (folder / label / f"{number}.png").write_bytes(picture(number + 100 * (label == "dog")))
    for number in range(4):
        (folder / "cat" / f"again-{number}.png").write_bytes(picture(0))
    source = {"kind": "image_folder", "folder": str(folder)}
    page = Page(shard(source=source).read("data_card.html").decode())
    assert "5 times" in page.words("duplicates")
    assert page.words("duplicates").count("cat · dropped") == 4
    assert all(f"cat/again-{number}.png · cat" in page.words("duplicates") for number in range(4))


def test_the_bytes_depend_on_data_and_options_alone(shard: Shard, photos: dict[str, Any], tmp_path: Path) -> None:
    one = shard(**photos, writers=1).read("data_card.html")
    three = shard(into=ArtifactStore.open(str(tmp_path / "other")), **photos, writers=3).read("data_card.html")
    assert one == three
    assert str(tmp_path).encode() not in one
    assert b"writers" not in one


def test_data_without_labels_captions_or_flaws_have_a_page_too(shard: Shard, tmp_path: Path, picture: Picture) -> None:
    rows = []
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        rows.append(json.dumps({"path": f"{number}.png", "said": ""}))
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    source = {"kind": "manifest", "manifest": str(tmp_path / "list.jsonl"), "caption_columns": ["said"]}
    page = Page(shard(source=source).read("data_card.html").decode())
    assert [name for name in SECTIONS if name not in page.sections] == ["classes", "captions"]
    assert "no label 12 images" in page.words("samples")
    assert "No two images have equal bytes" in page.words("duplicates")
    assert "Every item of the source is an intact image" in page.words("quarantine")
    assert "12 all the same" in page.words("images")


def rows(labels: Mapping[int, int]) -> list[SampleRow]:
    """So many rows of each label."""
    built = []
    for label, count in labels.items():
        for _ in range(count):
            number = len(built)
            built.append(SampleRow(f"k{number}", 0, 512, 9, label, ("a",), 8, 8, f"{number:032x}", 0, number, -1, "s"))
    return built


def test_of_thousands_of_classes_few_are_pictured_and_the_page_stays_small() -> None:
    names = [f"class {number}" for number in range(3000)]
    index = index_of(
        rows({number: 1 + (number % 7) for number in range(3000)}), shard_names=["s.tar"], label_names=names
    )
    assert len(ClassPictures(index).ids) <= 64 * 8
    assert len(CaptionExamples(index).ids) == 12
    counts = np.bincount(index.labels).tolist()
    per_label = [
        {"label": name, "samples": count, "train": count, "val": 0, "test": 0}
        for name, count in zip(names, counts, strict=True)
    ]
    section = balance_section({"labels": 3000, "per_label": per_label})
    assert section is not None
    assert "All classes in numbers, the first 2,000 of 3,000" in section
    assert len(section) < 400_000


def test_a_bounded_number_of_images_is_read(
    shard: Shard, image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    create = Gallery._create

    def counted(gallery: Gallery, id: int) -> str | None:
        read.append(id)
        return create(gallery, id)

    monkeypatch.setattr(Gallery, "_create", counted)
    shard(source={"kind": "image_folder", "folder": str(image_folder({"cat": 60, "dog": 60}))})
    assert len(read) == len(set(read)) <= 2 * 8 + 12


def test_the_sample_depends_on_keys_and_not_on_their_order() -> None:
    index = index_of(rows({0: 50}), shard_names=["s.tar"], label_names=["a"])
    backwards = index_of(rows({0: 50})[::-1], shard_names=["s.tar"], label_names=["a"])
    ids = np.arange(50, dtype=np.int64)
    assert [index.key(id) for id in by_hash(index, ids)] == [backwards.key(id) for id in by_hash(backwards, ids)]
    assert len(by_hash(index, np.arange(50, dtype=np.int64).repeat(100))) == 400


def test_rows_are_found_by_label() -> None:
    index = index_of(rows({2: 3, -1: 2, 0: 1}), shard_names=["s.tar"], label_names=["a", "b", "c"])
    assert [ids.tolist() for ids in rows_by_label(index)] == [[5], [], [0, 1, 2], [3, 4]]


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=300))
def test_every_value_is_in_a_bin(values: list[int]) -> None:
    bins = histogram_bins(np.array(values))
    assert sum(one.count for one in bins) == len(values)
    assert len(bins) <= 30
    for value in values:
        assert [
            one for one in bins if one.low <= value and (value < one.high or one.tail or one.low == one.high == value)
        ]


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=400))
def test_a_curve_stays_in_its_picture(counts: list[int]) -> None:
    drawn = curve("c", sorted(counts, reverse=True), x_label="rank")
    for x, y in re.findall(r"([\d.]+),([\d.]+)", drawn):
        assert 0 <= float(x) <= 420
        assert 0 <= float(y) <= 190


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("not an image of a format that is read (16 bytes)", "not an image of a format that is read (N bytes)"),
        ("9000x9000: 81000000 pixels, more than max_pixels=100", "N pixels, more than max_pixels=N"),
        ("cannot be read (No such file or directory)", "cannot be read (No such file or directory)"),
    ],
)
def test_reasons_are_counted_by_what_they_have_in_common(reason: str, kind: str) -> None:
    assert reason_kind(reason) == kind


def test_bytes_read_as_people_say_them() -> None:
    assert [in_bytes(count) for count in (0, 999, 1500, 2_000_000, 123_456_789_012)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2 MB",
        "123 GB",
    ]
