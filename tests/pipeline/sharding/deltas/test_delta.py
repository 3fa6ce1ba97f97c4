"""A delta holds what a full run would, reads only what is new, and moves nothing that its base holds."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import DamagedError, InputError
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.index import SPLITS, SampleIndex

Picture = Callable[..., bytes]


Add = Callable[..., Artifact]
Samples = Callable[[Artifact], dict[str, Any]]


def held(samples: dict[str, Any]) -> Counter[tuple[Any, ...]]:
    """What two artifacts have in common that hold the same: image, label, captions."""
    return Counter((sample[0], sample[1], tuple(sample[4])) for sample in samples.values())


@pytest.fixture
def pets(tmp_path: Path, picture: Picture) -> Path:
    """20 cats and 20 dogs."""
    root = tmp_path / "pets"
    for label, start in (("cat", 0), ("dog", 100)):
        (root / label).mkdir(parents=True)
        for number in range(20):
            (root / label / f"{number:03d}.png").write_bytes(picture(start + number))
    return root


def grow(folder: Path, picture: Picture) -> None:
    """12 images more, a class more, one removed, one changed."""
    for number in range(20, 26):
        (folder / "cat" / f"{number:03d}.png").write_bytes(picture(number))
    (folder / "bird").mkdir()
    for number in range(6):
        (folder / "bird" / f"{number:03d}.png").write_bytes(picture(200 + number))
    (folder / "dog" / "003.png").unlink()
    (folder / "dog" / "004.png").write_bytes(picture(999))


def test_a_delta_is_what_a_full_run_holds_and_stores_only_what_is_new(
    store: ArtifactStore, pets: Path, picture: Picture, add: Add, samples_of: Samples
) -> None:
    base = add(store, pets)
    before = samples_of(base)
    grow(pets, picture)
    delta = add(store, pets, base)
    assert held(samples_of(delta)) == held(samples_of(add(store, pets)))
    assert {name: delta.summary[name] for name in ("samples", "new", "changed", "removed")} == {
        "samples": 51,
        "new": 12,
        "changed": 1,
        "removed": 1,
    }
    after = samples_of(delta)
    gone = before.keys() - after.keys()
    assert {key: after[key] for key in before if key in after} == {key: before[key] for key in before.keys() - gone}
    tombstones = pq.read_table(delta.path("tombstones.parquet")).to_pylist()
    assert {row["key"] for row in tombstones} == gone
    assert {(row["name"], row["why"]) for row in tombstones} == {("dog/003.png", "removed"), ("dog/004.png", "changed")}
    assert all(row["shard"].startswith(f"{base.name}/shards/") for row in tombstones)
    index = SampleIndex.open(delta)
    assert index.label_names == ("cat", "dog", "bird"), "the base's numbers stay"
    own = [name for name in index.shard_names if name.startswith("shards/")]
    assert sorted(name for name in delta.files if name.endswith(".tar")) == sorted(own)
    streamed = {
        sample["__key__"]: sample
        for name in own
        for sample in webdataset.WebDataset(str(delta.path(name)), shardshuffle=False)
    }
    assert streamed.keys() == after.keys() - before.keys()
    assert len(streamed) == 13
    assert {json.loads(sample["json"])["label"] for sample in streamed.values()} == {"cat", "dog", "bird"}
    card = json.loads(delta.read("data_card.json"))
    assert card["delta"] == {
        "base": base.name,
        "base_samples": 40,
        "new": 12,
        "changed": 1,
        "removed": 1,
        "live": 51,
        "why": {"changed": 1, "removed": 1},
    }
    assert f"A delta on `{base.name}` (40 samples)" in delta.read("data_card.md").decode()


def test_an_image_that_changed_stays_in_its_split(store: ArtifactStore, pets: Path, picture: Picture, add: Add) -> None:
    base = add(store, pets)
    listing = pq.read_table(base.path("items.parquet")).to_pylist()
    splits = SampleIndex.open(base).splits
    was = {item["name"]: int(splits[item["row"]]) for item in listing}
    for number, name in enumerate(sorted(was)):
        (pets / name).write_bytes(picture(5000 + number))
    delta = add(store, pets, base)
    assert delta.summary["changed"] == 40
    splits = SampleIndex.open(delta).splits
    listing = pq.read_table(delta.path("items.parquet")).to_pylist()
    assert {item["name"]: int(splits[item["row"]]) for item in listing} == was


def test_only_what_is_new_or_changed_is_read(
    store: ArtifactStore, pets: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, add: Add
) -> None:
    base = add(store, pets)
    grow(pets, picture)
    touched = pets / "dog" / "010.png"
    os.utime(touched, (1, 1))
    opened: list[str] = []
    real = addresses.read
    monkeypatch.setattr(addresses, "read", lambda url, *rest: opened.append(url) or real(url, *rest))
    delta = add(store, pets, base)
    assert delta.summary["new"] == 12
    opened = [url for url in opened if url.startswith(str(pets))]  # The card's pictures come out of the tars.
    assert len(opened) == 14, "12 new ones, the changed one, and the touched one, which is taken back"
    assert str(touched) in opened


def test_nothing_new_reads_no_image_and_gives_the_base(
    store: ArtifactStore, pets: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, add: Add
) -> None:
    base = add(store, pets)
    for path in pets.rglob("*.png"):
        facts = path.stat()
        path.write_bytes(bytes(facts.st_size))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    monkeypatch.setattr(addresses, "read", lambda *arguments: pytest.fail("an image was read"))
    for name in (base, "newest"):
        again = add(store, pets, name)
        assert (again.name, again.cached) == (base.name, True)
    assert [artifact.name for artifact in store.list()] == [base.name]
    assert not list((store.local / "work").glob("*/*"))


def test_a_touched_file_is_nothing_new_either(store: ArtifactStore, pets: Path, add: Add) -> None:
    base = add(store, pets)
    os.utime(pets / "cat" / "000.png", (1, 1))
    assert add(store, pets, base).name == base.name


def test_a_chain_of_three_deltas(
    store: ArtifactStore, pets: Path, picture: Picture, add: Add, samples_of: Samples
) -> None:
    known = samples_of(last := add(store, pets, "newest"))
    for night in range(3):
        for number in range(4):
            (pets / "cat" / f"night{night}-{number}.png").write_bytes(picture(1000 + 10 * night + number))
        (pets / "dog" / f"{night:03d}.png").unlink()
        delta = add(store, pets, "newest")
        assert delta.manifest["inputs"] == {"base": last.name}
        now = samples_of(delta)
        assert {key: now[key] for key in known.keys() & now.keys()} == {key: known[key] for key in known.keys() & now}
        known, last = now, delta
    assert held(samples_of(last)) == held(samples_of(add(store, pets)))
    owners = {name.rpartition("shards/")[0] for name in SampleIndex.open(last).shard_names}
    assert len(owners) == 4, "each artifact of the chain holds some of the shards"


def test_a_copy_that_was_left_out_comes_back_when_the_other_goes(
    store: ArtifactStore, pets: Path, picture: Picture, add: Add, samples_of: Samples
) -> None:
    shutil.copyfile(pets / "cat" / "005.png", pets / "cat" / "copy.png")
    base = add(store, pets)
    assert base.summary["samples"] == 40
    (pets / "cat" / "005.png").unlink()
    delta = add(store, pets, base)
    assert samples_of(delta) == samples_of(base)
    assert (delta.summary["new"], delta.summary["removed"]) == (1, 1)


def test_a_copy_does_not_take_the_place_of_what_the_base_stores(store: ArtifactStore, pets: Path, add: Add) -> None:
    base = add(store, pets)
    for split in SPLITS:
        index = SampleIndex.open(base)
        row = int(index.rows(split)[0])
        listing = pq.read_table(base.path("items.parquet")).to_pylist()
        name = next(item["name"] for item in listing if item["row"] == row)
        # Before the original, in the order of the source.
        shutil.copyfile(pets / name, (pets / name).with_name(f"!{split}.png"))
    assert add(store, pets, base).name == base.name


def test_what_would_be_on_both_sides_is_on_none(
    store: ArtifactStore, tmp_path: Path, picture: Picture, add: Add
) -> None:
    """An image that the base holds out comes again, in a group that the base trains on."""

    def write(lines: list[tuple[str, str]]) -> None:
        text = "\n".join(f"{name},{group},words" for name, group in lines)
        (tmp_path / "list.csv").write_text(f"path,group,caption\n{text}\n")

    lines = [(f"{number}.png", f"group {number % 10}") for number in range(30)]
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    source = {"kind": "manifest", "manifest": str(tmp_path / "list.csv"), "group_column": "group"}
    source |= {"caption_columns": ["caption"]}  # type: ignore[dict-item]
    split = {"val_share": 0.0, "test_share": 0.4}
    write(lines)
    base = add(store, source, split=split)
    index = SampleIndex.open(base)
    items = pq.read_table(base.path("items.parquet")).to_pylist()
    split_of = {item["name"]: SPLITS[index.splits[item["row"]]] for item in items}
    held_out = next(line for line in lines if split_of[line[0]] == "test")
    trained_on = next(line for line in lines if split_of[line[0]] == "train")
    shutil.copyfile(tmp_path / held_out[0], tmp_path / "again.png")
    (tmp_path / "more.png").write_bytes(picture(500))
    write([*(line for line in lines if line != held_out), ("again.png", trained_on[1]), ("more.png", held_out[1])])
    delta = add(store, source, base, split=split)
    index = SampleIndex.open(delta)
    items = pq.read_table(delta.path("items.parquet")).to_pylist()
    now = {item["name"]: SPLITS[index.splits[item["row"]]] if item["row"] >= 0 else None for item in items}
    assert now == {
        **{name: split for name, split in split_of.items() if name != held_out[0]},
        "again.png": None,
        "more.png": "test",
    }
    groups = {item["name"]: int(index.groups[item["row"]]) for item in items if item["row"] >= 0}
    same = next(line[0] for line in lines if line[1] == held_out[1] and line != held_out)
    assert groups["more.png"] == groups[same], "its group has the number that the base gave it"


def test_a_class_may_shrink_below_its_splits_and_a_new_one_may_not_be_so_small(
    store: ArtifactStore, pets: Path, picture: Picture, add: Add, samples_of: Samples
) -> None:
    base = add(store, pets)
    for path in sorted((pets / "cat").iterdir())[1:]:
        path.unlink()
    delta = add(store, pets, base)
    (cat,) = (key for key, sample in samples_of(delta).items() if sample[1] == "cat")
    assert samples_of(delta)[cat] == samples_of(base)[cat]
    (pets / "emu").mkdir()
    (pets / "emu" / "only.png").write_bytes(picture(600))
    with pytest.raises(InputError, match="class 'emu' has 1 image, too few for 3 splits"):
        add(store, pets, delta)


def test_a_class_that_is_gone_keeps_its_number(store: ArtifactStore, pets: Path, picture: Picture, add: Add) -> None:
    base = add(store, pets)
    shutil.rmtree(pets / "cat")
    delta = add(store, pets, base)
    index = SampleIndex.open(delta)
    assert index.label_names == ("cat", "dog")
    assert set(index.labels.tolist()) == {1}


def test_any_number_of_writers_gives_the_same_bits(tmp_path: Path, pets: Path, picture: Picture, add: Add) -> None:
    stores = {count: ArtifactStore.open(str(tmp_path / f"writers-{count}")) for count in (1, 4)}
    bases = {count: add(store, pets, writers=count) for count, store in stores.items()}
    grow(pets, picture)
    deltas = {count: add(store, pets, bases[count], writers=count) for count, store in stores.items()}
    assert deltas[1].key == deltas[4].key
    assert deltas[1].files == deltas[4].files
    assert any(name.endswith(".tar") for name in deltas[1].files)


def test_a_base_that_is_gone_is_told(
    store: ArtifactStore, pets: Path, picture: Picture, tmp_path: Path, add: Add
) -> None:
    base = add(store, pets)
    grow(pets, picture)
    delta = add(store, pets, base)
    index = SampleIndex.open(delta)
    old = int(np.flatnonzero([name.startswith(base.name) for name in index.shard_names])[0])
    id = int(np.flatnonzero(index.shards == old)[0])
    place = Path(base.url)
    tar = place / index.shard_names[old].removeprefix(f"{base.name}/")
    whole = tar.read_bytes()
    tar.write_bytes(whole[: int(index.offsets[id])])
    with pytest.raises(DamagedError, match=rf"{base.name}/shards/.* the shard ends early"):
        SampleReader(delta, index).read(id)
    with pytest.raises(DamagedError, match=f"`tutelage artifacts verify {base.name}` says what else"):
        SampleReader(delta, index).read(id)
    tar.unlink()
    with pytest.raises(DamagedError, match="missing"):
        SampleReader(delta, index).read(id)
    place.rename(tmp_path / "away")
    with pytest.raises(DamagedError, match=rf"{delta.name} needs {base.name}, which is missing from"):
        SampleReader(delta, index).read(id)
