"""Rows of CSV, TSV, JSON lines and Parquet become samples; a bad row is quarantined, a bad table refused."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import Artifact
from pipeline.config import parse_config
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.base import Collection, Item

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Reason = Callable[[Item], str]
Picture = Callable[..., bytes]
Row = dict[str, Any]

ROWS: list[Row] = [
    {"path": "x/0.png", "label": "cat", "caption": 'a "cat", asleep', "split": "train", "group": "g1", "id": "one"},
    {"path": "x/1.png", "label": "dog", "caption": "a dog", "split": "valid", "group": "g1", "id": "two"},
    {"path": "x/2.png", "label": "", "caption": "ein Hund, größer", "split": "test", "group": "g2", "id": "three"},
]
ALL: Row = {
    "label_column": "label",
    "caption_columns": ["caption"],
    "split_column": "split",
    "group_column": "group",
    "key_column": "id",
}


def write(path: Path, rows: Sequence[Row]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Path:
    (tmp_path / "x").mkdir()
    for number in range(3):
        (tmp_path / "x" / f"{number}.png").write_bytes(picture(number))
    return tmp_path


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_every_form_gives_the_same_items(form: str, folder: Path, collect: Collect, picture: Picture) -> None:
    table = write(folder / f"list.{form}", ROWS)
    collection, items = collect(kind="manifest", manifest=str(table), **ALL)
    assert collection.label_names == ("cat", "dog")
    assert [item.label for item in items] == ["cat", "dog", None]
    assert [item.captions for item in items] == [(row["caption"],) for row in ROWS]
    assert [item.split for item in items] == ["train", "val", "test"]
    assert [(item.group, item.key, item.name) for item in items] == [(r["group"], r["id"], r["path"]) for r in ROWS]
    assert [pickle.loads(pickle.dumps(item)).read() for item in items] == [picture(n) for n in range(3)]


def test_real_photos_and_their_captions_become_shards(
    tmp_path: Path, shard: Callable[..., Artifact], photos: dict[str, bytes]
) -> None:
    for name, data in photos.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    rows = [
        {"path": "china.jpg", "caption": "a temple", "more": "red walls"},
        {"path": "flower.jpg", "caption": "a flower", "more": ""},
    ]
    index = SampleIndex.open(
        shard(
            source={
                "kind": "manifest",
                "manifest": str(write(tmp_path / "list.csv", rows)),
                "caption_columns": ["caption", "more"],
            },
            split={"val_share": 0, "test_share": 0},
        )
    )
    assert sorted(index.captions(id) for id in index.rows()) == [["a flower"], ["a temple", "red walls"]]
    assert set(zip(index.widths.tolist(), index.heights.tolist(), strict=True)) == {(640, 427)}


def test_several_captions_in_one_cell(folder: Path, collect: Collect) -> None:
    rows = [{"path": "x/0.png", "captions": ["one", "two"], "alt": "three"}, {"path": "x/1.png", "captions": []}]
    for form in ("jsonl", "parquet"):
        table = write(folder / f"list.{form}", rows)
        _, items = collect(kind="manifest", manifest=str(table), caption_columns=["captions", "alt"])
        assert [item.captions for item in items] == [("one", "two", "three"), ()]


def test_bad_rows_are_quarantined_with_their_reason(folder: Path, collect: Collect, reason: Reason) -> None:
    table = folder / "list.csv"
    table.write_bytes(
        b"path,caption\n"
        b"x/0.png,fine\n"
        b"x/gone.png,missing file\n"
        b",no path\n"
        b"x/1.png,caf\xe9\n"
        b"x/2.png\n"
        b"https://example.org/a.jpg,a link\n"
        b"/dev/zero,a device\n"
    )
    _, items = collect(kind="manifest", manifest=str(table), caption_columns=["caption"], roots=["/dev"])
    assert items[0].read()
    assert "No such file" in reason(items[1])
    assert reason(items[2]) == "names no file: its column 'path' is empty"
    assert reason(items[3]) == "its caption is not UTF-8"
    assert reason(items[4]) == "1 field, the head has 2"
    assert "img2dataset" in reason(items[5])
    assert reason(items[6]) == "not a regular file"
    assert items[4].name == "list.csv, row 5"
    lines = folder / "list.jsonl"
    lines.write_text('{"path": "x/0.png", "caption": "fine"}\n{oops\n[1]\n{"path": "x/0.png", "caption": {"a": 1}}\n')
    _, items = collect(kind="manifest", manifest=str(lines), caption_columns=["caption"])
    assert "not JSON" in reason(items[1])
    assert reason(items[2]) == "not a JSON object"
    assert reason(items[3]) == "list.jsonl, row 4: its caption is an object, not a text"
    lines.write_text('{"path": "x/0.png", "label": "a"}\n{"path": "x/0.png", "label": %s}\n' % ("9" * 5000))
    _, items = collect(kind="manifest", manifest=str(lines), label_column="label")
    assert reason(items[1]) == "not JSON (a number of 5,000 digits)"


def test_numbers_are_labels_in_their_order_and_get_their_names(folder: Path, collect: Collect, reason: Reason) -> None:
    rows = [{"path": f"x/{n}.png", "label": label} for n, label in enumerate([10, 9, 2])]
    table = write(folder / "list.parquet", rows)
    collection, _ = collect(kind="manifest", manifest=str(table), label_column="label")
    assert collection.label_names == ("2", "9", "10")
    names = folder / "names.txt"
    names.write_text("\n".join(f"class {n}" for n in range(10)))
    collection, items = collect(kind="manifest", manifest=str(table), label_column="label", class_names=str(names))
    assert len(collection.label_names) == 10
    assert [item.label for item in items] == [None, "class 9", "class 2"]
    assert reason(items[0]) == "list.parquet, row 1: label '10' is no class of class_names"


def test_images_may_lie_elsewhere_and_tables_may_be_several(folder: Path, tmp_path: Path, collect: Collect) -> None:
    (tmp_path / "tables").mkdir()
    for number in range(2):
        write(tmp_path / "tables" / f"part-{number}.csv", [{"path": f"{number}.png", "label": "a"}])
    for manifest in (tmp_path / "tables", f"{tmp_path}/tables/part-{{0..1}}.csv"):
        _, items = collect(kind="manifest", manifest=str(manifest), images=str(folder / "x"), label_column="label")
        assert [item.read() for item in items] == [(folder / "x" / f"{n}.png").read_bytes() for n in range(2)]


@pytest.mark.parametrize("image", ["binary", "struct"])
def test_bytes_in_parquet_are_read_one_cell_at_a_time(
    image: str, tmp_path: Path, collect: Collect, reason: Reason, picture: Picture
) -> None:
    pictures: list[bytes | None] = [picture(n) for n in range(100)]
    pictures[7] = None
    cells = pictures if image == "binary" else [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(pictures)]
    table = pa.table({"image": cells, "label": [str(n % 3) for n in range(100)]})
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=40)
    _, items = collect(
        kind="manifest", manifest=str(tmp_path / "list.parquet"), bytes_column="image", label_column="label"
    )
    assert ("is null" if image == "binary" else "the path '7.png'") in reason(items[7])
    order = [n for n in [*range(100), 3, 99, 41, 40, 39] if n != 7]
    assert [items[n].read() for n in order] == [pictures[n] for n in order]


def fingerprint(**values: Any) -> str:
    made: str = parse_config(ShardingConfig, {"source": values}, "test").source.resolved().fingerprint
    return made


def test_the_fingerprint_is_the_tables_content_and_not_its_place(folder: Path, tmp_path: Path) -> None:
    table = write(folder / "list.csv", ROWS)
    first = fingerprint(kind="manifest", manifest=str(table), **ALL)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert fingerprint(kind="manifest", manifest=str(write(moved / "list.csv", ROWS)), **ALL) == first
    assert fingerprint(kind="manifest", manifest=str(write(moved / "list.csv", ROWS[:2])), **ALL) != first


def test_wrong_tables_are_refused_in_one_line(folder: Path, refused: Refused) -> None:
    table = write(folder / "list.csv", ROWS)

    def line(**values: Any) -> str:
        return refused(kind="manifest", **{"manifest": str(table), **values})

    assert "name label_column or caption_columns" in line()
    assert "label_column: " in (told := line(label_column="labels"))
    assert "has no column 'labels'; it has path, label, caption" in told
    assert "path_column" in line(label_column="label", path_column="file")
    assert "is not Parquet" in line(label_column="label", bytes_column="path")
    assert "no such folder" in line(label_column="label", images=str(folder / "nowhere"))
    assert "no such file" in line(label_column="label", class_names=str(folder / "nowhere"))
    assert "no such file" in line(manifest=str(folder / "nowhere.csv"), label_column="label")
    assert "web addresses" in line(manifest="https://example.org/a.csv", label_column="label")
    (folder / "list.xlsx").write_bytes(b"PK")
    assert "not a known kind of table" in line(manifest=str(folder / "list.xlsx"), label_column="label")
    (folder / "empty.csv").write_text("")
    assert "column names" in line(manifest=str(folder / "empty.csv"), label_column="label")
    (folder / "bad.parquet").write_bytes(b"PAR1 no")
    assert "not a Parquet file" in line(manifest=str(folder / "bad.parquet"), label_column="label")
    (folder / "bad.jsonl").write_text("nothing\n")
    assert "line 1: not JSON" in line(manifest=str(folder / "bad.jsonl"), label_column="label")
    twice = write(folder / "twice.csv", [*ROWS, ROWS[1]])
    assert f"{twice}, row 4: key 'two' is that of {twice}, row 2 too" in line(manifest=str(twice), **ALL)
    odd = write(folder / "odd.csv", [{**ROWS[0], "split": "holdout"}])
    assert "row 1: split 'holdout' is none of train" in line(manifest=str(odd), **ALL)
