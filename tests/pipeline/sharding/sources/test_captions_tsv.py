"""Lists of captions and files, whichever way round; web addresses are refused with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import Artifact
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.base import Collection, Item

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Reason = Callable[[Item], str]


@pytest.fixture
def folder(tmp_path: Path, photos: dict[str, bytes]) -> Path:
    for name, data in photos.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    return tmp_path


def test_lines_of_one_file_are_one_sample(folder: Path, shard: Callable[..., Artifact]) -> None:
    (folder / "list.tsv").write_text("a temple\tchina.jpg\nred walls, a lake\tchina.jpg\na flower\tflower.jpg\n")
    index = SampleIndex.open(
        shard(
            source={"kind": "captions_tsv", "file": str(folder / "list.tsv")}, split={"val_share": 0, "test_share": 0}
        )
    )
    assert sorted(index.captions(id) for id in index.rows()) == [["a flower"], ["a temple", "red walls, a lake"]]


def test_the_other_order_a_head_and_given_splits(folder: Path, collect: Collect, photos: dict[str, bytes]) -> None:
    (folder / "train.tsv").write_text("file\tcaption\nchina.jpg\tein Tempel „am See“\n")
    (folder / "val.tsv").write_text("file\tcaption\r\nflower.jpg\ta flower\r\n")
    _, items = collect(
        kind="captions_tsv",
        file=str(folder / "train.tsv"),
        val_file=str(folder / "val.tsv"),
        order="path_caption",
        header=True,
    )
    assert [(item.split, item.captions) for item in items] == [(None, ("ein Tempel „am See“",)), ("val", ("a flower",))]
    assert [item.read() for item in items] == list(photos.values())


def test_the_same_file_further_down_is_of_the_same_group(folder: Path, collect: Collect) -> None:
    (folder / "list.tsv").write_text("one\tchina.jpg\ntwo\tflower.jpg\nthree\tchina.jpg\n")
    _, items = collect(kind="captions_tsv", file=str(folder / "list.tsv"))
    assert [item.captions for item in items] == [("one",), ("two",), ("three",)]
    assert items[0].group == items[2].group != items[1].group


def test_bad_lines_are_quarantined(folder: Path, collect: Collect, reason: Reason) -> None:
    (folder / "list.tsv").write_bytes(
        b"fine\tchina.jpg\nno tab\ntwo\ttabs\tchina.jpg\ncaf\xe9\tchina.jpg\nno file\t\na link\thttps://example.org/a.jpg\n"
    )
    _, items = collect(kind="captions_tsv", file=str(folder / "list.tsv"))
    assert items[0].read()
    assert [reason(item) for item in items[1:5]] == [
        "the line has 0 tabs instead of one",
        "the line has 2 tabs instead of one",
        "the line is not UTF-8",
        "the line names no file",
    ]
    assert "a web address; download the images first" in reason(items[5])
    assert items[1].name == "list.tsv, line 2"


def test_wrong_lists_are_refused(folder: Path, refused: Refused) -> None:
    def line(text: str, **values: Any) -> str:
        (folder / "list.tsv").write_text(text)
        return refused(kind="captions_tsv", file=str(folder / "list.tsv"), **values)

    told = line("a very typical bus station\thttp://lh6.ggpht.com/-IvRtNLNcG8o/a/b.jpg?imgmax=800\n")
    assert "line 1" in told
    assert "img2dataset" in told
    assert "set order=path_caption" in line("china.jpg\ta temple by a lake\n")
    assert "line 1: the line has 0 tabs" in line("china.jpg a temple\n")
    assert "holds no line" in line("\n")
    assert "no such folder" in line("a\tchina.jpg\n", images=str(folder / "nowhere"))
    assert "no such file" in line("a\tchina.jpg\n", test_file=str(folder / "test.tsv"))
