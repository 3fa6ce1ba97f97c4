"""Every option does what it says in the shards, and the data card counts it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.artifacts import Artifact
from pipeline.sharding.format.index import SampleIndex

Shard = Callable[..., Artifact]
MakeFolder = Callable[[Mapping[str, int]], Path]
Picture = Callable[..., bytes]
WHOLE = {"val_share": 0, "test_share": 0}


def card_of(artifact: Artifact) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(artifact.read("data_card.json"))
    return card


def images_of(artifact: Artifact) -> list[Image.Image]:
    index = SampleIndex.open(artifact)
    shards = [artifact.read(name) for name in index.shard_names]
    return [
        Image.open(io.BytesIO(shards[index.shards[id]][index.offsets[id] :][: index.lengths[id]]))
        for id in index.rows().tolist()
    ]


def test_images_are_scaled_and_converted(shard: Shard, image_folder: MakeFolder) -> None:
    folder = {"kind": "image_folder", "folder": str(image_folder({"cat": 12}))}
    artifact = shard(source=folder, split=WHOLE, images={"max_side": 8, "encoding": "webp", "quality": 80})
    assert {(image.format, image.size) for image in images_of(artifact)} == {("WEBP", (8, 7))}
    assert card_of(artifact)["encoded_anew"] == {"made webp": 8, "scaled": 12}
    assert "12 scaled" in artifact.read("data_card.md").decode()
    assert all(name.endswith((".webp", ".json")) for name in members(artifact))


def members(artifact: Artifact) -> list[str]:
    import tarfile

    found = []
    for name in SampleIndex.open(artifact).shard_names:
        with tarfile.open(artifact.path(name)) as tar:
            found += tar.getnames()
    return found


def test_shards_are_cut_by_their_size_too(shard: Shard, image_folder: MakeFolder, picture: Picture) -> None:
    root = image_folder({"cat": 3})
    for number in range(30):
        (root / "cat" / f"large{number}.png").write_bytes(picture(number, size=(60, 50)))
    source = {"kind": "image_folder", "folder": str(root)}
    artifact = shard(source=source, split=WHOLE, samples_per_shard=8, shard_megabytes=0.05)
    sizes = [artifact.files[name].size for name in SampleIndex.open(artifact).shard_names]
    assert len(sizes) > 6
    assert all(30_000 < size <= 50_000 for size in sizes[:-1])
    one_each = shard(source=source, split=WHOLE, shard_megabytes=0.001)
    assert len(SampleIndex.open(one_each).shard_names) == 33


@pytest.fixture
def with_copies(image_folder: MakeFolder, picture: Picture) -> dict[str, str]:
    """Two classes of twelve, two repeats, one image in both classes, and one encoded a second time."""
    root = image_folder({"cat": 12, "dog": 12})
    (root / "cat" / "copy1.png").write_bytes((root / "cat" / "000.png").read_bytes())
    (root / "cat" / "copy2.png").write_bytes((root / "cat" / "003.png").read_bytes())
    (root / "dog" / "both.png").write_bytes((root / "cat" / "006.png").read_bytes())
    buffer = io.BytesIO()
    Image.open(root / "dog" / "000.png").resize((48, 40), Image.Resampling.NEAREST).save(buffer, "PNG")
    (root / "dog" / "alike.png").write_bytes(buffer.getvalue())
    return {"kind": "image_folder", "folder": str(root)}


@pytest.mark.parametrize(
    ("options", "samples", "counts"),
    [
        ({}, 26, {"dropped_repeats": 2, "dropped_conflicts": 0, "dropped_alike": 0}),
        ({"exact": "keep"}, 28, {"dropped_repeats": 0}),
        ({"conflicts": "first"}, 25, {"dropped_repeats": 2, "dropped_conflicts": 1}),
        ({"conflicts": "drop"}, 24, {"dropped_repeats": 2, "dropped_conflicts": 2}),
        ({"near": "remove", "near_radius": 5}, 25, {"dropped_repeats": 2, "dropped_alike": 1}),
    ],
)
def test_duplicates(
    shard: Shard, with_copies: dict[str, str], options: dict[str, Any], samples: int, counts: dict[str, int]
) -> None:
    artifact = shard(source=with_copies, split=WHOLE, duplicates=options)
    assert artifact.summary["samples"] == samples
    card = card_of(artifact)["duplicates"]
    assert (card["found"], card["with_conflicting_labels"]) == (3, 1)
    assert {name: card[name] for name in counts} == counts


def test_caps_leave_so_many_training_images_of_a_label(shard: Shard, image_folder: MakeFolder) -> None:
    source = {"kind": "image_folder", "folder": str(image_folder({"cat": 40, "dog": 12}))}
    free, capped = shard(source=source), shard(source=source, caps={"per_label": 10})
    before, after = ({entry["label"]: entry for entry in card_of(one)["per_label"]} for one in (free, capped))
    assert after["cat"]["train"] == 10
    assert after["dog"]["train"] == min(10, before["dog"]["train"])
    assert all(before[label][split] == after[label][split] for label in before for split in ("val", "test"))
    left = sum(before[label]["train"] - after[label]["train"] for label in before)
    assert card_of(capped)["capped"] == {"per_label": left, "per_concept": 0}
    assert f"left out by the caps: {left} per label" in capped.read("data_card.md").decode()


def test_captions_are_cleaned_in_index_tar_and_card(shard: Shard, image_folder: MakeFolder) -> None:
    source = {"kind": "image_folder", "folder": str(image_folder({"cat": 12})), "caption": "a {label}&#8217;s  photo"}
    artifact = shard(source=source)
    assert SampleIndex.open(artifact).captions(0) == ["a cat’s photo"]
    assert card_of(artifact)["caption_cleaning"] == {"cleaned": 12}
    left = shard(source=source, captions={"clean": False})
    assert SampleIndex.open(left).captions(0) == ["a cat&#8217;s  photo"]
    assert card_of(left)["caption_cleaning"] == {}
    none = shard(source=source, captions={"min_chars": 100})
    assert none.summary["samples"] == 12
    assert SampleIndex.open(none).captions(0) == []
    assert not [name for name in members(none) if name.endswith(".txt")]


def test_a_bomb_is_quarantined(shard: Shard, image_folder: MakeFolder) -> None:
    root = image_folder({"cat": 12})
    Image.new("L", (400, 300)).save(root / "cat" / "large.png")
    source = {"kind": "image_folder", "folder": str(root)}
    artifact = shard(source=source, images={"max_pixels": 100_000}, max_unreadable_share=0.1)
    first = card_of(artifact)["unreadable"]["first"]
    assert first == [{"name": "cat/large.png", "reason": "400x300: 120000 pixels, more than max_pixels=100000"}]
