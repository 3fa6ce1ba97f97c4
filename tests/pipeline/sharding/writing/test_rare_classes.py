"""Classes with too few images for every split: refused before an image is read, dropped, or in train only; counted."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError, WorkError
from pipeline.html.markdown import text
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.sources.base import Item
from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.duplicates import DROPPED, DuplicatesConfig, SplitAssignment
from pipeline.sharding.writing.rare_classes import LabelSizes, label_numbers
from pipeline.sharding.writing.split import assign_splits
from pipeline.sharding.writing.split_config import SplitConfig

Picture = Callable[..., bytes]
Shard = Callable[..., Artifact]


@pytest.fixture
def table(tmp_path: Path, picture: Picture) -> Callable[..., dict[str, Any]]:
    """table({"cat": 9, "emu": 1}): a manifest of so many images a class; the images are there, or nowhere."""

    def make(counts: Mapping[str, int], *, images: bool = True, name: str = "list.csv") -> dict[str, Any]:
        lines = ["path,label"]
        for place, (label, count) in enumerate(counts.items()):
            for number in range(count):
                path = tmp_path / f"{label}-{number}.png"
                if images:
                    path.write_bytes(picture(1000 * place + number))
                lines.append(f"{path.name},{label}")
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return {"kind": "manifest", "manifest": str(tmp_path / name), "label_column": "label"}

    return make


def members(index: SampleIndex) -> dict[str, dict[str, int]]:
    """Images of each label in each split."""
    return {
        name: {split: int(((index.labels == n) & (index.splits == s)).sum()) for s, split in enumerate(SPLITS)}
        for n, name in enumerate(index.label_names)
    }


def test_all_rare_classes_are_named_before_an_image_is_read(table: Callable[..., Any], shard: Shard) -> None:
    source = table({"cat": 9, "emu": 1, "dog": 9, "yak": 2}, images=False)
    # None of the images is there: reading them would end as unreadable.
    with pytest.raises(InputError) as caught:
        shard(source=source)
    line = str(caught.value)
    assert "2 classes are too small for 3 splits (train, val, test): 'emu' with 1 image, 'yak' with 2 images" in line
    assert "set split.rare_classes to drop or train_only" in line
    with pytest.raises(InputError, match="class 'emu' has 1 image, too few for 2 splits"):
        shard(source=source, split={"test_share": 0})
    with pytest.raises(WorkError, match="unreadable"):
        shard(source=source, split={"rare_classes": "train_only"})


def test_five_thousand_rare_classes_are_one_short_line(table: Callable[..., Any], shard: Shard) -> None:
    source = table({"cat": 9} | {f"class number {n}": 1 for n in range(5000)}, images=False)
    with pytest.raises(InputError, match=r"5,000 classes are too small .* and 4,988 more") as caught:
        shard(source=source)
    assert len(str(caught.value)) < 1500


def test_the_same_is_said_of_tars_and_by_groups_and_given_splits(
    tmp_path: Path, shard: Shard, picture: Picture
) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for number in range(12):
            for name, data in ((f"{number}.jpg", b"no image"), (f"{number}.cls", b"1" if number == 11 else b"0")):
                made = tarfile.TarInfo(name)
                made.size = len(data)
                tar.addfile(made, io.BytesIO(data))
    for in_place in (False, True):
        with pytest.raises(InputError, match="class '1' has 1 image, too few for 3 splits"):
            shard(source={"kind": "webdataset", "tars": str(tmp_path / "t.tar"), "in_place": in_place})
    rows = ["path,label,who"] + [f"{n}.png,cat,photographer {n}" for n in range(9)]
    rows += [f"dog{n}.png,dog,one and the same" for n in range(9)]
    (tmp_path / "groups.csv").write_text("\n".join(rows))
    source = {"kind": "manifest", "manifest": str(tmp_path / "groups.csv"), "label_column": "label"}
    with pytest.raises(InputError, match="class 'dog' has 9 images in 1 content group, too few for 3 splits"):
        shard(source={**source, "group_column": "who"})
    rows = ["path,label,split"] + [f"{n}.png,{'ab'[n % 2]},{'train' if n < 8 else 'test'}" for n in range(12)]
    rows += ["x.png,c,train", "y.png,c,test"]
    (tmp_path / "given.csv").write_text("\n".join(rows))
    source["manifest"] = str(tmp_path / "given.csv")
    with pytest.raises(InputError, match="class 'c' has 1 image, too few for 2 splits"):
        shard(source={**source, "split_column": "split"})


@pytest.mark.parametrize("in_place", [False, True])
def test_dropped_classes_leave_no_label_no_image_and_are_counted(
    in_place: bool, tmp_path: Path, shard: Shard, picture: Picture
) -> None:
    counts = {"ant": 1, "cat": 9, "emu": 2, "dog": 9}
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for place, (label, count) in enumerate(counts.items()):
            for number in range(count):
                image = picture(1000 * place + number)
                for name, data in ((f"{label}{number}.png", image), (f"{label}{number}.cls", label.encode())):
                    made = tarfile.TarInfo(name)
                    made.size = len(data)
                    tar.addfile(made, io.BytesIO(data))
    source = {"kind": "webdataset", "tars": str(tmp_path / "t.tar"), "in_place": in_place}
    artifact = shard(source=source, split={"rare_classes": "drop"})
    index = SampleIndex.open(artifact)
    assert index.label_names == ("cat", "dog")
    assert len(index) == 18
    assert all(min(splits.values()) > 0 for splits in members(index).values())
    for id in range(len(index)):
        assert index.key(id).startswith(index.label_names[index.labels[id]])
    assert json.loads(artifact.read("labels.json")) == ["cat", "dog"]
    assert [node["name"] for node in json.loads(artifact.read("taxonomy.json"))["nodes"][1:]] == ["cat", "dog"]
    card = json.loads(artifact.read("data_card.json"))
    assert card["rare_classes"] == {"rule": "drop", "classes": 2, "images": 3, "of": {"ant": 1, "emu": 2}}
    assert artifact.summary["rare_classes"]["images"] == 3
    line = "2 rare classes with 3 images dropped: ant (1), emu (2)"
    assert text(line) in artifact.read("data_card.md").decode()
    assert line in artifact.read("data_card.html").decode()


def test_rare_classes_may_be_in_train_only(table: Callable[..., Any], shard: Shard) -> None:
    source = table({"ant": 1, "cat": 9, "emu": 2, "dog": 30})
    artifact = shard(source=source, split={"rare_classes": "train_only", "val_share": 0.4, "test_share": 0.4})
    index = SampleIndex.open(artifact)
    found = members(index)
    assert found["ant"] == {"train": 1, "val": 0, "test": 0}
    assert found["emu"] == {"train": 2, "val": 0, "test": 0}
    assert min(found["cat"].values()) > 0
    assert min(found["dog"].values()) > 0
    card = json.loads(artifact.read("data_card.json"))
    assert card["rare_classes"] == {"rule": "train_only", "classes": 2, "images": 3, "of": {"ant": 1, "emu": 2}}


def test_a_class_of_copies_is_dropped_like_one_that_is_small(tmp_path: Path, shard: Shard, picture: Picture) -> None:
    rows = ["path,label"]
    for number in range(20):
        # All of class b are the same image.
        (tmp_path / f"{number}.png").write_bytes(picture(number if number % 2 else 0))
        rows.append(f"{number}.png,{'ba'[number % 2]}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    source = {"kind": "manifest", "manifest": str(tmp_path / "list.csv"), "label_column": "label"}
    with pytest.raises(InputError, match="class 'b' has 10 images in 1 content group"):
        shard(source=source)
    artifact = shard(source=source, split={"rare_classes": "drop"})
    assert SampleIndex.open(artifact).label_names == ("a",)
    assert artifact.summary["rare_classes"]["of"] == {"b": 10}


def test_a_delta_refuses_early_drops_and_takes_a_class_back_that_grew(
    tmp_path: Path, store: ArtifactStore, add: Callable[..., Artifact], table: Callable[..., Any], picture: Picture
) -> None:
    drop = {"rare_classes": "drop"}
    base = add(store, table({"cat": 9, "dog": 9, "emu": 1}), split=drop)
    assert SampleIndex.open(base).label_names == ("cat", "dog")
    assert not any("emu" in name for name in names(base))
    # Refused early: the new images are nowhere.
    plain = add(store, table({"cat": 9, "dog": 9}))
    with pytest.raises(InputError, match="class 'yak' has 2 images, too few for 3 splits"):
        add(store, table({"cat": 9, "dog": 9, "yak": 2}, images=False), plain)
    more = add(store, table({"cat": 9, "dog": 11, "emu": 1, "yak": 2}), base, split=drop)
    index = SampleIndex.open(more)
    assert index.label_names == ("cat", "dog")
    assert (len(index), more.summary["new"]) == (20, 2)
    assert more.summary["rare_classes"]["of"] == {"emu": 1, "yak": 2}
    assert len(names(more)) == 20
    grown = add(store, table({"cat": 9, "dog": 11, "emu": 5, "yak": 2}), more, split=drop)
    index = SampleIndex.open(grown)
    assert index.label_names == ("cat", "dog", "emu")
    assert min(members(index)["emu"].values()) > 0
    assert sum(members(index)["emu"].values()) == 5
    assert grown.summary["new"] == 5
    assert sorted(set(pq.read_table(grown.path("items.parquet")).column("label").to_pylist())) == [0, 1, 2]
    full = SampleIndex.open(add(store, table({"cat": 9, "dog": 11, "emu": 5, "yak": 2}, name="b.csv"), split=drop))
    assert len(full) == len(index)


def names(artifact: Artifact) -> list[str]:
    return list(pq.read_table(artifact.path("items.parquet")).column("name").to_pylist())


def test_a_class_of_a_base_that_is_still_rare_stays_in_train(
    store: ArtifactStore, add: Callable[..., Artifact], table: Callable[..., Any]
) -> None:
    split = {"rare_classes": "train_only", "val_share": 0.45, "test_share": 0.45}
    base = add(store, table({"cat": 9, "dog": 9, "emu": 1}), split=split)
    more = add(store, table({"cat": 9, "dog": 9, "emu": 2}), base, split=split)
    assert members(SampleIndex.open(more))["emu"] == {"train": 2, "val": 0, "test": 0}
    assert more.summary["rare_classes"]["of"] == {"emu": 2}
    grown = add(store, table({"cat": 9, "dog": 9, "emu": 12}), more, split=split)
    found = members(SampleIndex.open(grown))["emu"]
    assert min(found.values()) > 0
    assert "rare_classes" not in grown.summary


def test_folders_are_refused_before_any_work_unless_they_are_allowed(
    shard: Shard, image_folder: Callable[..., Path]
) -> None:
    folder = image_folder({"cat": 9, "dog": 9, "emu": 2})
    source = {"kind": "image_folder", "folder": str(folder)}
    with pytest.raises(InputError, match="class 'emu' has 2 images"):
        shard(source=source)
    index = SampleIndex.open(shard(source=source, split={"rare_classes": "train_only"}))
    assert members(index)["emu"] == {"train": 2, "val": 0, "test": 0}
    assert SampleIndex.open(shard(source=source, split={"rare_classes": "drop"})).label_names == ("cat", "dog")


@pytest.mark.parametrize("rule", ["drop", "train_only"])
@pytest.mark.parametrize(
    ("folders", "empty", "kept_empty", "split"),
    [
        ({"cat": 9, "dog": 9}, ["yak"], [], {}),
        ({"train/cat": 9, "train/dog": 9, "val/cat": 2, "val/dog": 2}, ["train/yak", "val/yak"], ["val/cow"], {}),
        ({"train/cat": 9, "train/dog": 9, "val/cat": 2}, ["train/yak"], ["val/dog"], {"rule": "given"}),
        ({"cat/train": 9, "cat/val": 2, "dog/train": 9, "dog/val": 2}, ["yak/train", "yak/val"], [], {}),
    ],
)
def test_a_class_folder_without_images_is_dropped_and_counted(
    folders: dict[str, int],
    empty: list[str],
    kept_empty: list[str],
    split: dict[str, str],
    rule: str,
    shard: Shard,
    image_folder: Callable[..., Path],
) -> None:
    root = image_folder(folders)
    for name in (*empty, *kept_empty):
        (root / name).mkdir(parents=True)
    source = {"kind": "image_folder", "folder": str(root)}
    gone = sorted({"yak", *(name.removeprefix("val/") for name in kept_empty if "dog" not in name)})
    artifact = shard(source=source, split={**split, "rare_classes": rule})
    index = SampleIndex.open(artifact)
    assert index.label_names == ("cat", "dog")
    assert len(index) == sum(folders.values())
    assert json.loads(artifact.read("labels.json")) == ["cat", "dog"]
    assert sorted(set(index.labels.tolist())) == [0, 1]
    card = json.loads(artifact.read("data_card.json"))
    assert card["rare_classes"] == {
        "rule": rule, "classes": len(gone), "images": 0, "of": dict.fromkeys(gone, 0)
    }  # fmt: skip
    assert f"{len(gone)} rare class" in artifact.summary["headline"]
    assert "yak (0)" in artifact.read("data_card.html").decode()
    with pytest.raises(InputError, match=f"{gone[0]}' (has|with) 0 images.* set split.rare_classes to drop"):
        shard(source=source, split=split)


def test_an_empty_class_folder_in_a_delta(
    store: ArtifactStore, add: Callable[..., Artifact], image_folder: Callable[..., Path], picture: Picture
) -> None:
    folder = image_folder({"cat": 9, "dog": 9, "emu": 9})
    drop = {"rare_classes": "drop"}
    base = add(store, folder, split=drop)
    plain = add(store, folder)
    (folder / "yak").mkdir()
    with pytest.raises(InputError, match="class 'yak' has 0 images; add images"):
        add(store, folder, plain)
    (folder / "dog" / "new.png").write_bytes(picture(7777))
    more = add(store, folder, base, split=drop)
    assert SampleIndex.open(more).label_names == ("cat", "dog", "emu")
    assert more.summary["rare_classes"]["of"] == {"yak": 0}
    # A class of the base stays, whatever its size.
    for image in (folder / "emu").iterdir():
        image.unlink()
    emptied = add(store, folder, more, split=drop)
    assert SampleIndex.open(emptied).label_names == ("cat", "dog", "emu")
    assert (emptied.summary["removed"], emptied.summary["rare_classes"]["of"]) == (9, {"yak": 0})


@pytest.mark.parametrize("rule", ["drop", "train_only"])
@pytest.mark.parametrize("in_place", [None, False, True])
def test_a_named_class_without_images_is_dropped_and_counted(
    rule: str, in_place: bool | None, tmp_path: Path, shard: Shard, table: Callable[..., Any], picture: Picture
) -> None:
    (tmp_path / "classes.txt").write_text("cat\nyak\ndog\n")
    if in_place is None:
        source = table({"cat": 9, "dog": 9})
    else:
        with tarfile.open(tmp_path / "t.tar", "w") as tar:
            for number in range(18):
                label = b"0" if number % 2 else b"2"
                for name, data in ((f"{number}.png", picture(number)), (f"{number}.cls", label)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        source = {"kind": "webdataset", "tars": str(tmp_path / "t.tar"), "in_place": in_place}
    source["class_names"] = str(tmp_path / "classes.txt")
    with pytest.raises(InputError, match="class 'yak' has 0 images, too few for 3 splits"):
        shard(source=source)
    artifact = shard(source=source, split={"rare_classes": rule})
    index = SampleIndex.open(artifact)
    assert index.label_names == ("cat", "dog")
    assert {name: sum(splits.values()) for name, splits in members(index).items()} == {"cat": 9, "dog": 9}
    assert artifact.summary["rare_classes"]["of"] == {"yak": 0}


def test_an_item_under_another_label_is_not_counted_as_a_new_class(
    tmp_path: Path, store: ArtifactStore, add: Callable[..., Artifact], table: Callable[..., Any]
) -> None:
    source = table({"cat": 9, "dog": 9})
    base = add(store, source)
    path = Path(source["manifest"])
    path.write_text(path.read_text().replace("dog-0.png,dog", "dog-0.png,wolf"))
    assert SampleIndex.open(add(store, source, base)).label_names == ("cat", "dog", "wolf")


SAMPLES = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(-1, 5), st.integers(0, 40), st.sampled_from([None, None, "val", "train"])
    ),
    min_size=1,
    max_size=60,
)


@given(SAMPLES, st.sampled_from([0.0, 0.2, 0.45]), st.sampled_from([0.0, 0.2, 0.45]))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_with_either_rule_every_class_is_everywhere_or_rare(
    columns_of: Callable[..., PlanColumns],
    samples: list[tuple[int, int, int, str | None]],
    val_share: float,
    test_share: float,
) -> None:
    images = [
        {"group": f"g{group}", "label": label, "content": f"{content}", "given": split}
        for group, label, content, split in samples
    ]
    columns = columns_of(images)
    wanted = [0] + [1] * (val_share > 0 and not (columns.given_split == 1).any()) + [2] * (test_share > 0)
    for rule in ("drop", "train_only"):
        config = SplitConfig(val_share=val_share, test_share=test_share, rare_classes=rule)  # type: ignore[arg-type]
        assignment: SplitAssignment = assign_splits(columns, config, DuplicatesConfig(), [f"c{n}" for n in range(6)])
        drawn = (columns.given_split != 1) & (assignment.splits != DROPPED)
        for label in range(6):
            splits = assignment.splits[drawn & (columns.label == label)]
            if label not in assignment.rare_classes:
                assert set(wanted) <= set(splits.tolist())
            elif rule == "drop":
                assert not (assignment.splits[columns.label == label] != DROPPED).any()
            else:
                assert set(splits.tolist()) <= {0}


@pytest.mark.parametrize("rule", ["refuse", "drop", "train_only"])
def test_a_class_of_as_many_images_as_splits_has_one_in_each(columns_of: Callable[..., PlanColumns], rule: str) -> None:
    columns = columns_of([{"group": f"g{n}", "label": n // 3, "content": f"{n}"} for n in range(60)])
    config = SplitConfig(rare_classes=rule)  # type: ignore[arg-type]
    assignment = assign_splits(columns, config, DuplicatesConfig(), [f"c{n}" for n in range(20)])
    assert not assignment.rare_classes
    for label in range(20):
        assert sorted(assignment.splits[columns.label == label].tolist()) == [0, 1, 2]


def test_the_early_count_never_refuses_what_the_split_would_take(columns_of: Callable[..., PlanColumns]) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        count = int(rng.integers(1, 40))
        images = [
            {
                "group": None if rng.random() < 0.4 else f"g{rng.integers(0, 12)}",
                "label": int(rng.integers(-1, 4)),
                "content": f"{rng.integers(0, 30)}",
                "given": [None, None, "val", "test", "train"][int(rng.integers(0, 5))],
            }
            for _ in range(count)
        ]
        labels = [f"c{n}" for n in range(4)]
        config = SplitConfig(rule=["group", "image"][int(rng.integers(0, 2))])  # type: ignore[arg-type]
        sizes = LabelSizes(config)
        items = [
            Item(
                name=str(n),
                read=bytes,
                label=labels[image["label"]] if image["label"] >= 0 else None,
                group=image["group"],
                split=image["given"],
            )
            for n, image in enumerate(images)
        ]
        assert list(sizes.count(iter(items))) == items
        try:
            assign_splits(columns_of(images), config, DuplicatesConfig(), labels)
        except InputError:
            continue
        sizes.check(labels)
        refused += 1
    assert refused > 5


def test_numbers_of_labels_without_those_that_were_dropped() -> None:
    assert label_numbers(4, [1]).tolist() == [0, -2, 1, 2, -1]
    assert label_numbers(0, []).tolist() == [-1]
