"""A folder of images becomes shards that others read; the same folder gives the same bytes; mistakes are one line."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import InputError, TutelageError, WorkError
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.format.index import SPLITS, SampleIndex, content_hash
from pipeline.sharding.stage import ShardDataset
from pipeline.stage import run_stage, stage_key

Shard = Callable[..., Artifact]
MakeFolder = Callable[[Mapping[str, int]], Path]


def folder_source(folder: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "image_folder", "folder": str(folder), **more}


def test_every_row_points_at_its_image_and_webdataset_agrees(shard: Shard, image_folder: MakeFolder) -> None:
    folder = image_folder({"cat": 20, "hot dog": 14})
    artifact = shard(source=folder_source(folder, caption="a photo of a {label}"), samples_per_shard=5)
    index = SampleIndex.open(artifact)
    assert len(index) == 34
    assert index.label_names == ("cat", "hot dog")
    originals = {path.read_bytes(): path.parent.name for path in folder.rglob("*.*")}
    streamed: dict[str, dict[str, Any]] = {}
    for name in index.shard_names:
        for sample in webdataset.WebDataset(str(artifact.path(name)), shardshuffle=False):
            streamed[sample["__key__"]] = sample
    assert len(streamed) == 34
    for id in index.rows():
        shard_bytes = artifact.read(index.shard_names[index.shards[id]])
        data = shard_bytes[index.offsets[id] : index.offsets[id] + index.lengths[id]]
        label = index.label_names[index.labels[id]]
        # WebP without alpha is decoded as RGB, so every file here is stored as it was.
        assert originals[data] == label
        assert index.content_hash(id) == content_hash(data)
        assert Image.open(io.BytesIO(data)).size == (index.widths[id], index.heights[id])
        sample = streamed[index.key(id)]
        assert data in (sample.get("png"), sample.get("jpg"), sample.get("webp"))
        assert json.loads(sample["json"])["label"] == label
        assert sample["txt"].decode() == index.captions(id)[0] == f"a photo of a {label}"
        assert index.taxonomy[index.nodes[id]].name == label
        assert index.shard_names[index.shards[id]].startswith(f"shards/{SPLITS[index.splits[id]]}-")


def test_parquet_and_arrow_hold_the_same_rows(shard: Shard, image_folder: MakeFolder) -> None:
    artifact = shard(source=folder_source(image_folder({"cat": 9, "dog": 9})))
    assert SampleIndex.read(artifact.path("index.parquet")).fingerprint == SampleIndex.open(artifact).fingerprint
    assert SampleIndex.open(artifact).fingerprint == artifact.files["index.arrow"].sha256


def test_same_folder_gives_the_same_bytes_with_any_number_of_writers(
    tmp_path: Path, shard: Shard, image_folder: MakeFolder
) -> None:
    folder = image_folder({"cat": 15, "dog": 9})
    one = shard(source=folder_source(folder), writers=1)
    two = shard(into=ArtifactStore.open(str(tmp_path / "other")), source=folder_source(folder), writers=5)
    assert one.key == two.key
    assert one.files == two.files


def test_a_second_run_finds_the_artifact_and_a_new_image_makes_a_new_one(
    shard: Shard, image_folder: MakeFolder, picture: Callable[..., bytes]
) -> None:
    folder = image_folder({"cat": 9, "dog": 9})
    first = shard(source=folder_source(folder))
    assert not first.cached
    assert shard(source=folder_source(folder)).cached
    (folder / "dog" / "new.png").write_bytes(picture(777))
    second = shard(source=folder_source(folder))
    assert second.key != first.key
    assert second.summary["samples"] == first.summary["samples"] + 1


def test_the_key_does_not_depend_on_where_the_folder_lies(tmp_path: Path, image_folder: MakeFolder) -> None:
    folder = image_folder({"cat": 9, "dog": 9})
    before = parse_config(ShardingConfig, {"source": folder_source(folder)}, "test").resolved()
    moved = folder.rename(tmp_path / "elsewhere")
    after = parse_config(ShardingConfig, {"source": folder_source(moved)}, "test").resolved()
    assert stage_key(ShardDataset(), before, {}) == stage_key(ShardDataset(), after, {})


def test_an_unresolved_config_is_refused(store: ArtifactStore, image_folder: MakeFolder) -> None:
    config = parse_config(ShardingConfig, {"source": folder_source(image_folder({"cat": 9}))}, "test")
    with pytest.raises(InputError, match="resolved"):
        run_stage(ShardDataset(), config, {}, store=store)


def test_a_folder_that_changed_meanwhile_is_refused(store: ArtifactStore, image_folder: MakeFolder) -> None:
    folder = image_folder({"cat": 9})
    config = parse_config(ShardingConfig, {"source": folder_source(folder)}, "test").resolved()
    os.utime(folder / "cat" / "000.png", ns=(1, 1))
    with pytest.raises(InputError, match="changed since"):
        run_stage(ShardDataset(), config, {}, store=store)


def test_card_counts_what_is_there(shard: Shard, image_folder: MakeFolder, picture: Callable[..., bytes]) -> None:
    folder = image_folder({"cat": 20, "dog": 12})
    (folder / "cat" / "broken.png").write_bytes(picture(5, size=(50, 50))[:300])
    (folder / "cat" / "zero.jpg").write_bytes(b"")
    (folder / "dog" / "copy.png").write_bytes((folder / "dog" / "000.png").read_bytes())
    artifact = shard(source=folder_source(folder, licence="CC0-1.0", author="us"), max_unreadable_share=0.1)
    card = json.loads(artifact.read("data_card.json"))
    assert card["samples"] == 32
    assert sum(card["splits"].values()) == 32
    assert {entry["label"]: entry["samples"] for entry in card["per_label"]} == {"cat": 20, "dog": 12}
    assert all(sum(entry[split] for split in SPLITS) == entry["samples"] for entry in card["per_label"])
    assert card["duplicates"]["found"] == card["duplicates"]["dropped_repeats"] == 1
    assert card["unreadable"]["count"] == 2
    assert card["unreadable"]["per_label"] == {"cat": 2}
    assert card["credits"][0]["licence"] == "CC0-1.0"
    quarantined = pq.read_table(artifact.path("quarantine.parquet")).to_pylist()
    assert [(row["name"], row["bytes"]) for row in quarantined] == [("cat/broken.png", 300), ("cat/zero.jpg", 0)]
    assert all(row["reason"] for row in quarantined)
    page = artifact.read("data_card.md").decode()
    assert "cat/zero.jpg: empty (0 bytes)" in page
    assert "| dog | 12 |" in page
    summary = artifact.summary
    assert (summary["samples"], summary["unreadable"], summary["duplicates"], summary["labels"]) == (32, 2, 1, 2)
    assert summary["train"] + summary["val"] + summary["test"] == 32
    sheet = Image.open(artifact.path("contact_sheet.png"))
    assert sheet.width > 500


def test_shards_hold_at_most_so_many_samples(shard: Shard, image_folder: MakeFolder) -> None:
    artifact = shard(source=folder_source(image_folder({"cat": 30})), samples_per_shard=4)
    for name in SampleIndex.open(artifact).shard_names:
        with tarfile.open(artifact.path(name)) as tar:
            assert len({member.name.partition(".")[0] for member in tar}) <= 4
    assert artifact.verify() == []


def test_too_many_unreadable_images_stop_the_stage_and_commit_nothing(
    store: ArtifactStore, shard: Shard, image_folder: MakeFolder
) -> None:
    folder = image_folder({"cat": 20})
    for number in range(3):
        (folder / "cat" / f"{number:03d}.png").write_bytes(b"no image")
    with pytest.raises(WorkError, match=r"unreadable, more than max_unreadable_share=0\.01"):
        shard(source=folder_source(folder))
    assert not list((store.local / "artifacts").glob("*/*"))


def refused(shard: Shard, **values: Any) -> str:
    with pytest.raises(InputError) as caught:
        shard(**values)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_mistakes_are_refused_in_one_line_before_any_work(
    tmp_path: Path, store: ArtifactStore, shard: Shard, image_folder: MakeFolder
) -> None:
    folder = image_folder({"cat": 9, "dog": 2})
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no such folder" in refused(shard, source=folder_source(tmp_path / "nowhere"))
    assert "holds no sub-folder" in refused(shard, source=folder_source(empty))
    (empty / "cat").mkdir()
    assert "no image in any sub-folder" in refused(shard, source=folder_source(empty))
    assert "is a file" in refused(shard, source=folder_source(folder / "cat" / "000.png"))
    assert "class 'dog' has 2 images, too few for 3 splits" in refused(shard, source=folder_source(folder))
    assert "are one family" in refused(shard, source=folder_source(folder), split={"holdout_family": "noto"})
    (folder / "bird").mkdir()
    assert "'bird' with 0 images, 'dog' with 2 images" in refused(shard, source=folder_source(folder))
    assert "did you mean noto" in refused(shard, source={"kind": "emoji"}, split={"holdout_family": "nota"})
    assert "did you mean food-drink" in refused(shard, source={"kind": "emoji", "groups": ["food-drinks"]})
    assert "unknown key 'source.sizes'" in refused(shard, source={"kind": "emoji", "sizes": 3})
    assert "max_unreadable_share" in refused(shard, max_unreadable_share=3)
    assert not (store.local / "work").exists()


def test_names_of_any_bytes_and_letters_are_kept_readable(
    tmp_path: Path, shard: Shard, picture: Callable[..., bytes]
) -> None:
    root = tmp_path / "names"
    for place, label in enumerate(["猫", "a.b c"]):
        (root / label / "deeper").mkdir(parents=True)
        for number in range(9):
            name = os.fsdecode(b"deeper/\xff%d.PNG" % number)
            (root / label / name).write_bytes(picture(100 * place + number))
    index = SampleIndex.open(shard(source=folder_source(root)))
    assert index.label_names == ("a.b c", "猫")
    assert len(index) == 18
    assert all("." not in index.key(id) for id in index.rows())


def test_a_loop_of_links_ends(shard: Shard, image_folder: MakeFolder) -> None:
    folder = image_folder({"cat": 9})
    (folder / "cat" / "loop").symlink_to(folder / "cat")
    assert shard(source=folder_source(folder)).summary["samples"] == 9


def test_progress_ends_at_its_total(store: ArtifactStore, image_folder: MakeFolder) -> None:
    seen: list[tuple[str, int, int | None]] = []

    def progress(*, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        seen.append((note, step, total))

    config = parse_config(ShardingConfig, {"source": folder_source(image_folder({"cat": 9}))}, "test").resolved()
    run_stage(ShardDataset(), config, {}, store=store, progress=progress)
    assert ("reading images", 9, 9) in seen
    assert ("writing shards", 9, 9) in seen


def junk(folder: Path, picture: Callable[..., bytes]) -> dict[str, Any]:
    """A folder in which nothing is an image."""
    for number in range(4):
        (folder / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "photos" / "ab"[number % 2] / f"{number}.png").write_bytes(b"not an image")
    return {"source": {"kind": "image_folder", "folder": str(folder / "photos")}, "max_unreadable_share": 1}


def rows_without_files(folder: Path, picture: Callable[..., bytes]) -> dict[str, Any]:
    (folder / "list.csv").write_text("path,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(20)))
    source = {"kind": "manifest", "manifest": str(folder / "list.csv"), "label_column": "label"}
    return {"source": source, "max_unreadable_share": 1}


def tar_of_texts(folder: Path, picture: Callable[..., bytes]) -> dict[str, Any]:
    write_members(folder / "t.tar", [(f"{n}.txt", b"a text") for n in range(6)])
    return {"source": {"kind": "webdataset", "tars": str(folder / "t.tar")}, "max_unreadable_share": 1}


def tar_of_texts_in_place(folder: Path, picture: Callable[..., bytes]) -> dict[str, Any]:
    values = tar_of_texts(folder, picture)
    return {**values, "source": {**values["source"], "in_place": True}}


def tar_of_nothing(folder: Path, picture: Callable[..., bytes]) -> dict[str, Any]:
    write_members(folder / "t.tar", [("no-extension", b"0")])
    return {"source": {"kind": "webdataset", "tars": str(folder / "t.tar")}}


def table_of_nothing(folder: Path, picture: Callable[..., bytes]) -> dict[str, Any]:
    (folder / "list.csv").write_text("path,label\n")
    return {"source": {"kind": "manifest", "manifest": str(folder / "list.csv"), "label_column": "label"}}


def contradictions(folder: Path, picture: Callable[..., bytes]) -> dict[str, Any]:
    for number in range(8):
        (folder / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "photos" / "ab"[number % 2] / f"{number}.png").write_bytes(picture(number // 2))
    return {
        "source": {"kind": "image_folder", "folder": str(folder / "photos")},
        "duplicates": {"conflicts": "drop"},
        "split": {"val_share": 0, "test_share": 0},
    }


def write_members(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            made = tarfile.TarInfo(name)
            made.size = len(data)
            tar.addfile(made, io.BytesIO(data))


@pytest.mark.parametrize(
    "make",
    [
        junk,
        rows_without_files,
        tar_of_texts,
        tar_of_texts_in_place,
        tar_of_nothing,
        table_of_nothing,
        contradictions,
    ],
)
def test_a_run_that_would_store_nothing_is_not_done(
    make: Callable[..., dict[str, Any]],
    tmp_path: Path,
    shard: Callable[..., Artifact],
    store: ArtifactStore,
    picture: Callable[..., bytes],
) -> None:
    with pytest.raises(TutelageError) as caught:
        shard(**make(tmp_path, picture))
    assert len(str(caught.value)) < 800
    assert list(store.list()) == []


def test_a_source_that_is_suddenly_empty_takes_nothing_from_its_base(
    tmp_path: Path, store: ArtifactStore, add: Callable[..., Artifact], picture: Callable[..., bytes]
) -> None:
    table = tmp_path / "list.csv"
    lines = [f"{n}.png,{'ab'[n % 2]}\n" for n in range(20)]
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    table.write_text("path,label\n" + "".join(lines))
    source = {"kind": "manifest", "manifest": str(table), "label_column": "label"}
    base = add(store, source, max_unreadable_share=1)
    table.write_text("path,label\n")
    with pytest.raises(InputError, match="no image is listed"):
        add(store, source, base, max_unreadable_share=1)
    # The table is there again, the disk with the images is not.
    table.write_text("path,label\n" + "".join(lines[:-1]))
    for number in range(20):
        (tmp_path / f"{number}.png").rename(tmp_path / f"{number}.away")
    with pytest.raises(WorkError, match=r"none of the 19 images .* is usable \(19 unreadable, first 0.png: cannot be"):
        add(store, source, base, max_unreadable_share=1)
    assert [artifact.name for artifact in store.list()] == [base.name]
