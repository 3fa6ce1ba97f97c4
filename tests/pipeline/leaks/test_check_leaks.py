"""The stage: planted leaks are found and counted, clean data are clean, and nothing it finds makes it fail."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError, WorkError
from pipeline.leaks import signature_cache
from pipeline.leaks.bounds import LeakBounds, LeakCheckConfig
from pipeline.leaks.stage import CheckLeaks
from pipeline.sharding.format.index import SampleIndex
from pipeline.stage import run_stage

Photo = Callable[..., Image.Image]
Encode = Callable[..., bytes]
Shard = Callable[..., Artifact]
Check = Callable[..., Artifact]


@pytest.fixture
def check(store: ArtifactStore) -> Check:
    """check(shards, other=None, near_radius=...): the finding."""

    def run(shards: Artifact, other: Artifact | None = None, **values: Any) -> Artifact:
        inputs = {"shards": shards} if other is None else {"shards": shards, "other": other}
        return run_stage(CheckLeaks(), LeakCheckConfig(**values), inputs, store=store)

    return run


@pytest.fixture(scope="module")
def clean(photo: Photo, encode: Encode) -> list[tuple[Any, ...]]:
    """30 training, 10 validation and 20 test images, all different."""
    splits = ["train"] * 30 + ["val"] * 10 + ["test"] * 20
    return [(split, f"{split}-{number}", encode(photo(number)), number % 2) for number, split in enumerate(splits)]


def pairs(finding: Artifact) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(finding.path("leaks.parquet")).to_pylist()
    return rows


def splits(finding: Artifact) -> dict[tuple[str, str], dict[str, Any]]:
    return {(split["data"], split["split"]): split for split in json.loads(finding.read("leaks.json"))["splits"]}


def test_clean_data_are_found_clean(shard: Shard, check: Check, clean: list[Any]) -> None:
    finding = check(shard(clean))
    assert pairs(finding) == []
    assert all(split[kind]["images"] == 0 for split in splits(finding).values() for kind in ("exact", "pixels", "near"))
    assert len(splits(finding)) == 2
    LeakBounds(max_exact_share=0, max_pixels_share=0, max_near_share=0).check(finding)
    assert "0 exact, 0 pixels, 0 near of 30 evaluation images" in finding.read("leaks.md").decode()


def test_planted_leaks_are_found_as_what_they_are(
    shard: Shard, check: Check, clean: list[Any], photo: Photo, encode: Encode
) -> None:
    planted = [
        ("test", "copied", encode(photo(3)), 1),
        ("test", "re-encoded", encode(photo(4), compress_level=1), 0),
        ("test", "as-jpeg", encode(photo(5), "JPEG", quality=70), 0),
        ("val", "smaller", encode(photo(6).resize((144, 144), Image.Resampling.LANCZOS)), 0),
    ]
    finding = check(shard([*clean, *planted]))
    found = [
        (pair["kind"], pair["evaluation_split"], pair["evaluation_key"], pair["train_key"], pair["same_label"])
        for pair in pairs(finding)
    ]
    assert sorted(found) == [
        ("exact", "test", "copied", "train-3", True),
        ("near", "test", "as-jpeg", "train-5", False),
        ("near", "val", "smaller", "train-6", True),
        ("pixels", "test", "re-encoded", "train-4", True),
    ]
    of = splits(finding)
    assert of["shards", "test"]["images"] == 23
    for kind in ("exact", "pixels", "near"):
        assert Fraction(of["shards", "test"][kind]["share"]) == Fraction(1 / 23)
    assert of["shards", "val"]["near"] == {"images": 1, "share": 1 / 11}
    page = finding.read("leaks.md").decode()
    assert "| test | 23 | 1 (4.35%) | 1 (4.35%) | 1 (4.35%) | 0 | 0 |" in page
    assert "test: as-jpeg" in page
    with Image.open(io.BytesIO(finding.read("leaks.png"))) as sheet:
        blank = Image.open(io.BytesIO(check(shard(clean)).read("leaks.png")))
        assert sheet.height > blank.height


def test_files_are_named_as_in_the_source(shard: Shard, check: Check, clean: list[Any], encode: Encode) -> None:
    photos = {"copied": "holiday/2024/IMG_0001.JPG", "train-3": "cats/IMG_0003.JPG"}
    copy = ("test", "copied", clean[3][2])
    named, unnamed = check(shard([*clean, copy], names=photos)), check(shard([*clean, copy]))
    assert [(pair["evaluation_name"], pair["evaluation_key"], pair["train_name"]) for pair in pairs(named)] == [
        ("holiday/2024/IMG_0001.JPG", "copied", "cats/IMG_0003.JPG")
    ]
    page = named.read("leaks.md").decode()
    assert "| test: holiday/2024/IMG\\_0001.JPG | cat | copied | train: cats/IMG\\_0003.JPG | dog | train-3 |" in page
    assert named.read("leaks.png") != unnamed.read("leaks.png")
    assert [(pair["evaluation_name"], pair["train_name"]) for pair in pairs(unnamed)] == [("copied", "train-3")]


def test_an_image_counts_once_under_its_worst_match(
    shard: Shard, check: Check, clean: list[Any], photo: Photo, encode: Encode
) -> None:
    copies = [("train", f"again-{quality}", encode(photo(3), "JPEG", quality=quality)) for quality in range(60, 95, 5)]
    finding = check(shard([*clean, *copies, ("test", "copied", encode(photo(3)))]), listed=4)
    test = splits(finding)["shards", "test"]
    assert (test["exact"]["images"], test["pixels"]["images"], test["near"]["images"]) == (1, 0, 0)
    listed = pairs(finding)
    assert [pair["kind"] for pair in listed] == ["exact", "near", "near", "near"]
    assert {pair["matches"] for pair in listed} == {8}
    assert [pair["difference"] for pair in listed] == sorted(pair["difference"] for pair in listed)


def test_two_data_sets_are_searched_both_ways(
    shard: Shard, check: Check, clean: list[Any], photo: Photo, encode: Encode
) -> None:
    benchmark = [("test", f"b{number}", encode(photo(100 + number))) for number in range(9)]
    benchmark += [("test", "ours", encode(photo(8))), ("train", "theirs", encode(photo(35)))]
    # Within the benchmark a leak is the business of its own check.
    benchmark += [("train", "its-own", encode(photo(100)))]
    finding = check(shard(clean), shard(benchmark))
    found = {
        (pair["evaluation_data"], pair["evaluation_key"], pair["train_data"], pair["train_key"])
        for pair in pairs(finding)
    }
    assert found == {("other", "ours", "shards", "train-8"), ("shards", "val-35", "other", "theirs")}
    assert splits(finding)["other", "test"]["exact"] == {"images": 1, "share": 0.1}
    with pytest.raises(WorkError, match=r"1 of 10 other test images \(10.00%\) are also training images"):
        LeakBounds().check(finding)


def test_a_share_above_its_bound_stops_in_one_line_and_the_pictures_stay(
    shard: Shard, check: Check, store: ArtifactStore, clean: list[Any], photo: Photo, encode: Encode
) -> None:
    shards = shard([*clean, ("test", "as-jpeg", encode(photo(5), "JPEG", quality=70))])
    finding = check(shards)
    with pytest.raises(WorkError) as stopped:
        LeakBounds(max_near_share=0.04).check(finding)
    line = str(stopped.value)
    assert "\n" not in line
    assert "1 of 21 test images (4.76%) look like a training image, more than max_near_share=0.04" in line
    assert line.endswith("or raise the bound: --max-near-share 0.048")
    for can_remove, near in (
        (True, ", --set data.duplicates.near=remove (keep one of several similar images)"),
        (False, ""),
    ):
        with pytest.raises(WorkError) as stopped_flow:
            LeakBounds(max_near_share=0.04).check(finding, in_flow=True, can_remove_near=can_remove)
        assert str(stopped_flow.value).endswith(
            f"remove them from the data, or --set leaks.max_near_share=0.048 (raise the bound){near} or "
            "--set leaks=null (no check)"
        )
    LeakBounds(max_near_share=0.048).check(finding)
    sheet = line.partition("look at ")[2].partition(" (")[0]
    with Image.open(sheet) as picture:
        assert picture.width > 1000
    # The bounds are not part of the key: the finding is found, and stops again.
    again = check(shards, max_near_share=0.5)
    assert again.cached
    assert again.key == finding.key
    LeakBounds(max_near_share=1 / 21).check(again)
    with pytest.raises(WorkError):
        LeakBounds(max_near_share=0.047).check(again)


def test_damaged_images_are_named_and_the_others_checked(
    shard: Shard, check: Check, clean: list[Any], photo: Photo, encode: Encode
) -> None:
    broken = encode(photo(50))[:200]
    images = [*clean, ("test", "broken", broken), ("train", "broken-too", broken), ("test", "copied", encode(photo(3)))]
    shards = shard(images)
    with pytest.raises(WorkError, match=r"2 or more of its 63 images cannot be read, .* \(shards/t.*, sample broken"):
        check(shards)
    finding = check(shards, max_unreadable_share=2 / 63)
    test = splits(finding)["shards", "test"]
    assert test["unreadable"] == 1
    # Equal bytes are equal images, though nobody can see them.
    assert test["exact"]["images"] == 2
    unreadable = json.loads(finding.read("leaks.json"))["unreadable"]["shards"]
    assert unreadable["images"] == 2
    assert any("sample broken at byte" in reason for reason in unreadable["first"])
    assert "Unreadable in shards: 2" in finding.read("leaks.md").decode()


def test_flat_images_are_no_leaks_unless_they_are_equal(
    shard: Shard, check: Check, clean: list[Any], encode: Encode
) -> None:
    def plain(grey: int) -> bytes:
        return encode(Image.new("RGB", (40, 40), (grey, grey, grey)))

    finding = check(
        shard([*clean, ("train", "white", plain(255)), ("test", "grey", plain(250)), ("val", "w", plain(255))])
    )
    assert [(pair["kind"], pair["evaluation_key"]) for pair in pairs(finding)] == [("exact", "w")]
    assert splits(finding)["shards", "test"]["flat"] == 1


def test_signatures_survive_a_stopped_run_and_serve_the_next_check(
    shard: Shard, check: Check, store: ArtifactStore, clean: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature_cache, "_BLOCK", 16)
    shards = shard(clean)
    looked: list[bytes] = []
    whole = signature_cache.image_signature

    def counted(data: bytes) -> np.void:
        if len(looked) == 40:
            raise KeyboardInterrupt
        looked.append(data)
        return whole(data)

    monkeypatch.setattr(signature_cache, "image_signature", counted)
    with pytest.raises(KeyboardInterrupt):
        check(shards, threads=1)
    monkeypatch.setattr(signature_cache, "image_signature", lambda data: looked.append(data) or whole(data))
    check(shards, threads=1)
    assert len(looked) == 40 + len(clean) - 32  # two blocks of 16 were complete
    check(shards, near_radius=2)
    check(shards, shard(clean[:1] + clean[-1:]))
    assert len(looked) == 40 + len(clean) - 32 + 2


def test_there_must_be_something_to_compare(shard: Shard, check: Check, clean: list[Any]) -> None:
    only_train = shard([image for image in clean if image[0] == "train"])
    only_test = shard([image for image in clean if image[0] == "test"])
    with pytest.raises(InputError, match="nothing to compare"):
        check(only_train)
    with pytest.raises(InputError, match="nothing to compare"):
        check(only_test)
    with pytest.raises(InputError, match="is both data sets"):
        check(only_train, only_train)
    assert len(splits(check(only_train, only_test))) == 1


@pytest.mark.servers
def test_shards_on_s3_are_checked_too(
    shard: Shard, clean: list[Any], photo: Photo, encode: Encode, s3_url: str, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = ArtifactStore.open(s3_url)
    shards = shard([*clean, ("test", "copied", encode(photo(3)))], into=store)
    finding = run_stage(CheckLeaks(), LeakCheckConfig(), {"shards": shards}, store=store)
    assert [(pair["kind"], pair["train_key"]) for pair in pairs(finding)] == [("exact", "train-3")]
    with pytest.raises(WorkError, match=f"look at {s3_url}/artifacts/check-leaks/.*leaks.png"):
        LeakBounds().check(finding)
    assert len(SampleIndex.open(shards)) == len(clean) + 1
