"""Tables as people have them: other separators and encodings, stray quotes, long cells, paths of Windows; all said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.sharding.format.file_addresses import join
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.file_type import file_type

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Reason = Callable[[Item], str]
Picture = Callable[..., bytes]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 132735\n"


def of(table: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "manifest", "manifest": str(table), "label_column": "label", **more}


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", "path,label\nä.png,cat\n".encode("utf-16"), "text in UTF-16: save it as UTF-8"),
        ("a.csv", "path,label\nä.png,cat\n".encode("utf-16-be"), "text in UTF-16"),
        ("a.tsv", "path\tlabel\nx.png\tcat\n".encode("utf-16-le"), "text in UTF-16"),
        ("a.jsonl", '{"path": "x.png"}\n'.encode("utf-16"), "text in UTF-16"),
        ("a.csv", "path,label\nä.png,cat\n".encode("utf-32"), "text in UTF-32"),
        ("a.csv", b"path;label\nx.png;cat\n", "separated by semicolons, and a .csv file is read with commas"),
        ("a.csv", b"path\tlabel\nx.png\tcat\n", "separated by tabs"),
        ("a.csv", b"path|label\nx.png|cat\n", "separated by bars"),
        ("a.tsv", b"path,label\nx.png,cat\n", "separated by commas, and a .tsv file is read with tabs"),
        ("a.csv", LFS, "git lfs pull"),
        ("a.jsonl", LFS, "git lfs pull"),
        ("a.parquet", LFS, "not a Parquet file (it is a Git LFS pointer"),
        ("a.csv", b"PK\x03\x04" + bytes(99), "a zip archive"),
        ("a.parquet", b"PK\x03\x04" + bytes(99), "a zip archive"),
        ("a.csv", b"<!doctype html>\n<html>", "a web page"),
        ("a.csv", b"\x1f\x8b\x08" + bytes(99), "compressed (gzip)"),
        ("a.csv", "größe,label\nx.png,cat\n".encode("latin-1"), "its first line is not UTF-8"),
        ("a.csv", b"path,label,label\nx.png,cat,dog\n", "two columns are called 'label'"),
    ],
)
def test_a_table_in_another_form_is_called_what_it_is(
    name: str, content: bytes, what: str, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / name).write_bytes(content)
    line = refused(**of(tmp_path / name))
    assert what in line
    assert str(tmp_path / name) in line


def test_the_names_of_classes_and_lists_are_looked_at_too(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "a.csv").write_text("path,label\nx.png,1\n")
    (tmp_path / "names.txt").write_bytes(LFS)
    assert "git lfs pull" in refused(**of(tmp_path / "a.csv", class_names=str(tmp_path / "names.txt")))
    (tmp_path / "list.tsv").write_bytes(LFS)
    assert "git lfs pull" in refused(kind="captions_tsv", file=str(tmp_path / "list.tsv"))


def test_a_table_that_begins_like_an_image_is_a_table(tmp_path: Path, collect: Collect) -> None:
    for number, first in enumerate(("BM,path,label", "P1 x,path,label", "BZh9,path,label", ",path,label")):
        (tmp_path / f"{number}.csv").write_text(f"{first}\n0,x.png,cat\n")
        assert [item.label for item in collect(**of(tmp_path / f"{number}.csv"))[1]] == ["cat"]


def test_every_table_of_several_has_the_columns(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "0.csv").write_text("path,label\nx.png,cat\n")
    (tmp_path / "1.csv").write_text("file,label\nx.png,cat\n")
    assert "1.csv: has no column 'path'; it has file, label" in refused(**of(tmp_path))
    (tmp_path / "1.csv").unlink()
    pq.write_table(pa.table({"path": ["x.png"]}), tmp_path / "1.parquet")
    assert "1.parquet: has no column 'label'; it has path" in refused(**of(tmp_path))


@pytest.mark.parametrize("line", [1, 27])
@pytest.mark.parametrize("bad", [b"{oops", b"[1]", b'{"path": "\xff", "label": "cat"}', b"null"])
def test_a_bad_line_is_quarantined_wherever_it_stands(
    line: int, bad: bytes, tmp_path: Path, collect: Collect, reason: Reason
) -> None:
    lines = [json.dumps({"path": f"{n}.png", "label": "cat"}).encode() for n in range(1, 31)]
    lines[line - 1] = bad
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    _, items = collect(**of(tmp_path / "a.jsonl"))
    assert len(items) == 30
    assert items[line - 1].name == f"a.jsonl, row {line}"
    assert any(word in reason(items[line - 1]) for word in ("not JSON", "not a JSON object", "is not UTF-8"))


@pytest.mark.parametrize("line", [1, 27])
@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"label": ["cat"]}, "its label is a list, not a text or a number"),
        ({"caption": {"en": "a cat"}}, "its caption is an object, not a text"),
        ({"caption": [["a cat"]]}, "its caption is a list, not a text"),
        ({"label": "\ud800"}, "its label is not UTF-8"),
        ({"caption": "\ud800"}, "its caption is not UTF-8"),
        ({"split": "\ud800"}, "its split is not UTF-8"),
        ({"group": ["a"]}, "its group is a list, not a text or a number"),
        ({"path": None}, "names no file: its column 'path' is empty"),
        ({"path": 3}, "names no file: its column 'path' is 3, not a path"),
    ],
)
def test_a_bad_value_is_quarantined_with_its_row_wherever_it_stands(
    line: int, values: dict[str, Any], what: str, tmp_path: Path, collect: Collect, reason: Reason
) -> None:
    rows: list[dict[str, Any]] = [
        {"path": f"{n}.png", "label": "cat", "caption": "a cat", "split": "train", "group": "g"} for n in range(30)
    ]
    rows[line - 1] |= values
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"caption_columns": ["caption"], "split_column": "split", "group_column": "group"}
    _, items = collect(**of(tmp_path / "a.jsonl", **columns))
    assert len(items) == 30
    bad = items[line - 1]
    assert reason(bad).endswith(what)
    assert f"a.jsonl, row {line}" in (bad.name + reason(bad))
    assert [item.captions for item in items if item is not bad] == [("a cat",)] * 29


def test_invalid_json_is_said_by_its_column_and_row(tmp_path: Path, collect: Collect, reason: Reason) -> None:
    (tmp_path / "a.jsonl").write_text('{"path": "x.png", "label": "cat"}\n{"path": "y.png", "lab\n')
    _, items = collect(**of(tmp_path / "a.jsonl"))
    assert items[1].name == "a.jsonl, row 2"
    assert reason(items[1]) == "not JSON (Invalid control character at column 23)"


def test_a_file_of_no_json_at_all_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "a.jsonl").write_text("nothing\nat all\n" * 20)
    assert "line 1: not JSON" in refused(**of(tmp_path / "a.jsonl"))


def test_a_long_cell_is_read_and_an_endless_one_refused(tmp_path: Path, collect: Collect, refused: Refused) -> None:
    long = "a polygon " * 30_000
    (tmp_path / "a.csv").write_text(f'path,label,caption\nx.png,cat,"{long}"\ny.png,dog,short\n')
    _, items = collect(**of(tmp_path / "a.csv", caption_columns=["caption"]))
    assert [item.captions for item in items] == [(long,), ("short",)]
    with (tmp_path / "b.csv").open("w") as file:
        file.write('path,label\nx.png,cat\ny.png,"dog\n')
        file.writelines("z.png,cat\n" * 1_700_000)
    line = refused(**of(tmp_path / "b.csv"))
    assert "a cell of more than 16,777,216 characters: is a quote not closed?" in line


@pytest.mark.parametrize(
    ("end", "lost"), [('b.png,"y\nc.png,z\nd.png,w\n', 3), ('b.png,"y\nc.png,z', 2), ('b.png,"y\nz"', 0)]
)
def test_rows_that_an_open_quote_takes_to_the_end_are_counted(
    end: str, lost: int, tmp_path: Path, collect: Collect
) -> None:
    (tmp_path / "images.csv").write_text(f"path,label\na.png,x\n{end}")
    collection, items = collect(kind="manifest", manifest=str(tmp_path / "images.csv"), label_column="label")
    assert collection.total == len(items) == 1 + (lost or 1)
    assert sum(item.label is None for item in items) == lost


def test_each_line_that_a_stray_quote_swallows_is_counted(tmp_path: Path, collect: Collect, reason: Reason) -> None:
    rows = [f"{n}.png,cat,a thing" for n in range(30)]
    rows[3] = '3.png,"cat,a thing'
    rows[26] = '26.png,cat",a thing'
    (tmp_path / "a.csv").write_text("path,label,caption\n" + "\n".join(rows) + "\n")
    _, items = collect(**of(tmp_path / "a.csv", caption_columns=["caption"]))
    assert len(items) == 30
    bad = [item for item in items if item.label is None]
    assert len(bad) == 24
    assert {reason(item) for item in bad} == {"lines 5 to 28 are one row: is a quote not closed?"}
    assert [item.name for item in items[-3:]] == ["27.png", "28.png", "29.png"]
    poem = "Roses are red,\nviolets are blue,\nsugar is sweet,\nand so are you"
    (tmp_path / "b.csv").write_text(f'path,label,caption\nx.png,cat,"{poem}"\n')
    _, items = collect(**of(tmp_path / "b.csv", caption_columns=["caption"]))
    assert items[0].captions == (poem,)


def test_paths_of_windows_are_recognised(
    tmp_path: Path, collect: Collect, reason: Reason, picture: Picture, refused: Refused
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture(1))
    (tmp_path / "odd\\name.png").write_bytes(picture(2))
    (tmp_path / "a.csv").write_text(
        "path,label\nphotos\\a.png,cat\nC:\\photos\\a.png,cat\nC:/photos/a.png,cat\nodd\\name.png,cat\n"
    )
    _, items = collect(**of(tmp_path / "a.csv"))
    assert "Windows' backslashes: write /" in reason(items[0])
    assert "a Windows path with a drive" in reason(items[1])
    assert "a Windows path with a drive" in reason(items[2])
    assert items[3].read() == picture(2)
    with pytest.raises(ValueError, match="Windows path with a drive"):
        join("s3://bucket/photos", "D:\\a.png")
    assert "a Windows path with a drive" in refused(**of(Path("C:\\photos\\a.csv")))
    assert "Windows' backslashes: write /" in refused(**of(tmp_path / "a.csv", images="photos\\2024"))


def test_what_a_file_is_is_known_by_its_first_bytes(picture: Picture) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        assert file_type(picture(1, kind)[:512]) == f"an image ({kind})"
    for text in (b"", b"path,label\n", b'{"path": 1}\n', b"a cat\tphotos/1.jpg\n", "größe".encode(), bytes(512)):
        assert file_type(text) is None


def test_wrong_forms_are_refused_by_columns_that_are_joined(tmp_path: Path) -> None:
    from pipeline.sharding.format.file_addresses import stat
    from pipeline.sharding.joining.column_files import batches

    (tmp_path / "a.csv").write_bytes("key,score\na,1\n".encode("utf-16"))
    with pytest.raises(InputError, match="text in UTF-16"):
        list(batches(stat(str(tmp_path / "a.csv")), "key", []))
