"""Emoji packs become a data set whose labels, captions and groups are true."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import Artifact
from pipeline.errors import InputError
from pipeline.progress import silent
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.base import Collection, Credit
from pipeline.sharding.sources.demo.emoji import Concept, EmojiConfig, captions, collect_emoji
from pipeline.sharding.sources.demo.emoji_packs import FAMILIES, STYLES, EmojiStyle, normalise_hexcode
from pipeline.sharding.sources.demo.npm_packs import Pack

SQUARE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><rect width="10" height="10" fill="#ff0000"/></svg>'
)
TABLE: list[dict[str, Any]] = [
    {"hexcode": "1F426", "annotation": "bird", "tags": "animal, bird, ornithology, wing", "subgroups": "animal-bird"},
    {"hexcode": "1F414", "annotation": "chicken", "tags": "", "subgroups": "animal-bird"},
    {"hexcode": "1F43B-200D-2744-FE0F", "annotation": "polar bear", "tags": "arctic", "subgroups": "animal-mammal"},
    {"hexcode": "1F98A", "annotation": "fox", "tags": "", "subgroups": "animal-mammal"},
    {"hexcode": "1F44B-1F3FB", "annotation": "wave", "tags": "", "subgroups": "animal-bird", "skintone": 1},
    {"hexcode": "E000", "annotation": "extra", "tags": "", "subgroups": "brand", "group": "extras-openmoji"},
]


def packed(path: Path, files: Mapping[str, bytes | str]) -> Pack:
    """Writes a .tgz as npm does, and gives its pin."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = path.read_bytes()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    name, _, version = path.name.removesuffix(".tgz").rpartition("-")
    return Pack(name, version, integrity, len(data))


def webp(colour: tuple[int, int, int, int], size: tuple[int, int] = (256, 256)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", size, colour).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Collection]:
    """source(...): the emoji of three small packs, read by the readers of the real ones."""
    rows = [{"group": "animals-nature", "skintone": "", **row} for row in TABLE]
    codes = [normalise_hexcode(row["hexcode"]) for row in TABLE]
    openmoji = packed(
        tmp_path / "openmoji-1.0.0.tgz",
        {"data/openmoji.json": json.dumps(rows)} | {f"color/svg/{row['hexcode']}.svg": SQUARE for row in TABLE},
    )
    icons: dict[str, Any] = {
        "width": 10,
        "height": 10,
        "icons": {
            "left": {"body": '<rect width="5" height="10" fill="#0000ff"/>'},
            "tall": {"body": "<g/>", "height": 40},
        },
        "aliases": {"right": {"parent": "left", "hFlip": True}, "same": {"parent": "right"}},
    }
    chars = {codes[0]: "left", codes[1]: "right", codes[2]: "same", codes[3]: "tall", codes[5]: "unknown"}
    noto = packed(tmp_path / "noto-1.0.0.tgz", {"icons.json": json.dumps(icons), "chars.json": json.dumps(chars)})
    names = ["1f426", "1f414", "1f43b-200d-2744-fe0f", "1f98a"]
    fluent = packed(tmp_path / "fluent-1.0.0.tgz", {f"assets/{name}.webp": webp((0, 255, 0, 255)) for name in names})
    readers = {style.name: style.drawings for style in STYLES}
    credit = Credit("work", "author", "MIT", "")
    styles = [
        EmojiStyle("openmoji", "openmoji", openmoji, credit, readers["openmoji"]),
        EmojiStyle("noto", "noto", noto, credit, readers["noto"]),
        EmojiStyle("fluent-3d", "fluent", fluent, credit, readers["fluent-3d"]),
    ]

    def make(**options: Any) -> Collection:
        config = EmojiConfig(packs=tmp_path, **{"min_concepts": 2, "groups": ("animals-nature",), **options})
        return collect_emoji(config, styles, openmoji, tmp_path / "none", silent)

    return make


def pixels(collection: Collection, name: str) -> np.ndarray:
    data = next(item for item in collection.items() if item.name == name).read()
    return np.asarray(Image.open(io.BytesIO(data)))


def test_concepts_are_joined_over_the_packs_without_skin_tones_and_extras(source: Callable[..., Collection]) -> None:
    collection = source()
    items = list(collection.items())
    assert collection.total == len(items) == 4 * 3
    assert collection.label_names == ("animal-bird", "animal-mammal")
    assert [item.key for item in items[:3]] == ["1f426-openmoji", "1f426-noto", "1f426-fluent-3d"]
    assert {item.key for item in items} >= {"1f43b-200d-2744-noto"}
    assert [item.family for item in items[:3]] == ["openmoji", "noto", "fluent"]
    assert items[0].taxonomy == ("animals-nature", "animal-bird")
    assert [item.key for item in collection.items()] == [item.key for item in items]


def test_every_drawing_is_a_square_of_the_size_on_white(source: Callable[..., Collection]) -> None:
    collection = source(size=20)
    for item in collection.items():
        image = Image.open(io.BytesIO(item.read()))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (20, 20))
    assert (pixels(collection, "bird (openmoji)") == (255, 0, 0)).all()
    assert (pixels(collection, "bird (fluent-3d)") == (0, 255, 0)).all()
    assert (pixels(collection, "fox (noto)") == 255).all()


def test_an_alias_is_its_parent_perhaps_mirrored(source: Callable[..., Collection]) -> None:
    collection = source(size=20)
    left, right = pixels(collection, "bird (noto)"), pixels(collection, "chicken (noto)")
    assert (left[:, :10] == (0, 0, 255)).all()
    assert (left[:, 10:] == 255).all()
    assert (right == left[:, ::-1]).all()
    assert (pixels(collection, "polar bear (noto)") == right).all()


def test_a_subgroup_with_few_concepts_is_no_label_but_keeps_its_captions(source: Callable[..., Collection]) -> None:
    collection = source(min_concepts=3)
    assert collection.label_names == ()
    assert all(item.label is None and item.captions for item in collection.items())


def test_few_concepts_are_taken_evenly(source: Callable[..., Collection]) -> None:
    items = list(source(max_concepts=2).items())
    assert {item.taxonomy[1] for item in items} == {"animal-bird", "animal-mammal"}
    assert len(items) == 2 * 3


def test_captions_say_only_what_the_pack_says() -> None:
    assert captions("bird", ["animal", "bird", "beak", "wing", "fly"]) == (
        "bird",
        "an emoji of bird",
        "bird, animal, beak, wing",
        "fly: bird",
    )
    assert captions("chicken", []) == ("chicken", "an emoji of chicken")
    assert captions("person: beard", ["beard", "person"]) == ("person: beard", "an emoji of person: beard")


@pytest.mark.parametrize(
    "variants",
    [
        # person, man, woman running; the same facing right
        ["1f3c3", "1f3c3-200d-2642", "1f3c3-200d-2640", "1f3c3-200d-27a1", "1f3c3-200d-2640-200d-27a1"],
        # farmer, man farmer, woman farmer
        ["1f9d1-200d-1f33e", "1f468-200d-1f33e", "1f469-200d-1f33e"],
        # person, man, woman; with red hair
        ["1f9d1", "1f468", "1f469"],
        ["1f9d1-200d-1f9b0", "1f468-200d-1f9b0", "1f469-200d-1f9b0"],
        # child, boy, girl; Mx, Mrs. and Santa Claus
        ["1f9d2", "1f466", "1f467"],
        ["1f9d1-200d-1f384", "1f936", "1f385"],
    ],
)
def test_variants_of_gender_and_direction_are_one_group(variants: list[str]) -> None:
    groups = {Concept(code, "", (), "", "").content_group for code in variants}
    assert len(groups) == 1


def test_signs_alone_are_concepts_of_their_own() -> None:
    groups = {Concept(code, "", (), "", "").content_group for code in ["2640", "2642", "27a1", "1f3c3", "1f6b6"]}
    assert len(groups) == 5


def test_the_two_fluent_packs_are_one_family() -> None:
    assert [style.family for style in STYLES if style.name.startswith("fluent")] == ["fluent", "fluent"]
    assert FAMILIES == ("openmoji", "noto", "twemoji", "fluent")
    assert EmojiConfig(families=("fluent", "noto")).families == ("noto", "fluent")


def test_the_key_depends_on_the_packs_that_are_used_only(tmp_path: Path) -> None:
    everything = EmojiConfig().resolved()
    assert everything.fingerprint == EmojiConfig(packs=tmp_path).resolved().fingerprint
    assert everything.fingerprint != EmojiConfig(families=("noto",)).resolved().fingerprint


def test_a_folder_without_a_pack_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks openmoji-17\.0\.0\.tgz; get it with: npm pack openmoji@17\.0\.0"):
        EmojiConfig(packs=tmp_path).check(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        EmojiConfig(packs=tmp_path / "nowhere").check(tmp_path)


def test_a_pack_that_is_not_the_pinned_one_is_refused(tmp_path: Path, source: Callable[..., Collection]) -> None:
    with (tmp_path / "noto-1.0.0.tgz").open("ab") as file:
        file.write(b"!")
    with pytest.raises(InputError, match=r"noto-1\.0\.0\.tgz: is not noto@1\.0\.0 as published"):
        source()


@pytest.mark.servers
def test_real_packs_become_shards_with_one_artist_held_out(shard: Callable[..., Artifact]) -> None:
    artifact = shard(
        source={"kind": "emoji", "families": ["openmoji", "twemoji"], "groups": ["food-drink"]},
        split={"holdout_family": "twemoji"},
    )
    index = SampleIndex.open(artifact)
    assert len(index) == 2 * 131
    assert "food-fruit" in index.label_names
    assert {index.family(id) for id in index.rows("test")} == {"twemoji"}
    assert {index.family(id) for id in index.rows() if index.splits[id] != 2} == {"openmoji"}
    assert not set(index.groups[index.rows("train")]) & set(index.groups[index.rows("val")])
    lemon = next(id for id in index.rows("test") if index.key(id) == "1f34b-twemoji")
    assert index.captions(lemon)[0] == "lemon"
    assert [index.taxonomy[node].name for node in (0, index.nodes[lemon])] == ["emoji", "food-fruit"]
