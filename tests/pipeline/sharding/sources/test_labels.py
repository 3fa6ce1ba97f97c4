"""One label for what a reader sees as one, none for what programs write where none is; both are said."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import Artifact
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.labels import MISSING_WORDS, class_name_of, label_of, normalise_label, sort_labels
from pipeline.sharding.writing.intake import safe_key

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Reason = Callable[[Item], str]
Picture = Callable[..., bytes]
COMPOSED = "Café"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def write(path: Path, labels: list[Any]) -> dict[str, Any]:
    rows = [{"path": f"{n}.png", "label": label} for n, label in enumerate(labels)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        sign = "\t" if path.suffix == ".tsv" else ","
        path.write_text(
            "".join(sign.join(map(str, row)) + "\n" for row in [("path", "label"), *map(dict.values, rows)])
        )
    return {"kind": "manifest", "manifest": str(path), "label_column": "label"}


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", "NA", "<NA>", "", "  ", "\u00a0", "\ufeff", "\u200b "])
def test_what_programs_write_for_no_label_is_no_class(form: str, word: str, tmp_path: Path, collect: Collect) -> None:
    collection, items = collect(**write(tmp_path / f"a.{form}", ["cat", word, "dog", word]))
    assert collection.label_names == ("cat", "dog")
    assert [item.label for item in items] == ["cat", None, "dog", None]
    assert collection.notes[0].startswith("2 of 4 rows have no label (2 ")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_real_gaps_among_numbers_are_no_class(form: str, tmp_path: Path, collect: Collect) -> None:
    collection, items = collect(**write(tmp_path / f"a.{form}", [1.0, float("nan"), 2.0, None]))
    assert collection.label_names == ("1", "2")
    assert [item.label for item in items] == ["1", None, "2", None]
    assert collection.notes[0].startswith("2 of 4 rows have no label (1 'nan', 1 empty")


def test_a_column_of_nothing_is_refused(tmp_path: Path, refused: Refused) -> None:
    line = refused(**write(tmp_path / "a.csv", ["nan"] * 3 + [""] * 2))
    assert "column 'label' holds no label in any of 5 rows (3 'nan', 2 empty; where such a word is a class" in line


def test_a_class_that_is_really_called_so_is_named_in_class_names(tmp_path: Path, collect: Collect) -> None:
    (tmp_path / "names.txt").write_text("cat\nNone\n")
    source = write(tmp_path / "a.csv", ["cat", "None", "nan", "0", "1.0"])
    collection, items = collect(**source, class_names=str(tmp_path / "names.txt"))
    assert [item.label for item in items] == ["cat", "None", None, "cat", "None"]
    assert "1 of 5 rows have no label (1 'nan'" in collection.notes[0]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_lists_and_the_like_are_no_labels(form: str, tmp_path: Path, collect: Collect, reason: Reason) -> None:
    collection, items = collect(**write(tmp_path / f"a.{form}", [["cat"], ["dog", "cat"]]))
    assert collection.label_names == ()
    assert [reason(item) for item in items] == [
        f"a.{form}, row {row}: its label is a list, not a text or a number" for row in (1, 2)
    ]


def test_numbers_of_any_length_are_labels_in_their_order() -> None:
    # Python converts no more than 4,300 digits.
    long = "9" * 6000
    assert sort_labels([long, "b", "10", "007", "7", "2", "1" + long, "a"]) == (
        "2", "007", "7", "10", long, "1" + long, "a", "b",
    )  # fmt: skip
    assert (class_name_of("0", ("a", "b")), class_name_of("01", ("a", "b"))) == ("a", "b")
    for unknown in (long, "2"):
        with pytest.raises(ValueError, match="is no class of class_names"):
            class_name_of(unknown, ("a", "b"))


def test_words_are_missing_only_as_they_are_written() -> None:
    assert label_of("none") == "none"
    assert label_of("Nancy") == "Nancy"
    assert label_of(-1) == "-1"
    assert label_of(-1, ["a"]) is None
    assert label_of(True) == "1"
    assert class_name_of("3.0", ("a", "b", "c", "d")) == "d"
    assert all(label_of(word) is None for word in MISSING_WORDS)
    assert normalise_label(f"\ufeff {DECOMPOSED}\u00a0\u200b") == COMPOSED


def test_in_tars_too(tmp_path: Path, collect: Collect, picture: Picture) -> None:
    labels = ["cat", "nan", DECOMPOSED, f"{COMPOSED} ", "None", ""]
    for name, texts in (("cls", labels), ("json", [json.dumps({"label": label}) for label in labels])):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for number, text in enumerate(texts):
                for extension, data in (("jpg", picture(number, "JPEG")), (name, text.encode())):
                    made = tarfile.TarInfo(f"{number}.{extension}")
                    made.size = len(data)
                    tar.addfile(made, io.BytesIO(data))
        collection, items = collect(kind="webdataset", tars=str(tmp_path / f"{name}.tar"), labels=name)
        assert collection.label_names == (COMPOSED, "cat")
        assert [item.label for item in items] == ["cat", None, COMPOSED, COMPOSED, None, None]
        assert collection.notes[0] == "labels that look the same were merged: 'Cafe\\u0301' and 'Caf\\xe9'"
        assert "3 of 6 samples have no label (1 'None', 1 'nan', 1 empty" in collection.notes[1]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_labels_of_a_table_that_were_made_one_are_noted(form: str, tmp_path: Path, collect: Collect) -> None:
    labels = [COMPOSED, "dog", DECOMPOSED, "dog ", "cat", "cat"]
    collection, items = collect(**write(tmp_path / f"a.{form}", labels))
    assert [item.label for item in items] == [COMPOSED, "dog", COMPOSED, "dog", "cat", "cat"]
    assert collection.label_names == (COMPOSED, "cat", "dog")
    assert collection.notes == (
        "labels that look the same were merged: 'Cafe\\u0301' and 'Caf\\xe9', 'dog' and 'dog '",
    )


def test_labels_and_groups_that_look_the_same_are_one_and_it_is_said(
    tmp_path: Path, shard: Callable[..., Artifact], picture: Picture
) -> None:
    names = [COMPOSED, DECOMPOSED, "dog", "dog "]
    for place, name in enumerate(names):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2 + 3 * (place > 1)):
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(picture(10 * place + number))
    artifact = shard(source={"kind": "image_folder", "folder": str(tmp_path / "photos"), "caption": "a {label}"})
    index = SampleIndex.open(artifact)
    assert sorted(index.label_names) == [COMPOSED, "dog"]
    assert len(index) == 14
    assert {index.captions(id)[0] for id in range(len(index))} <= {f"a {COMPOSED}", "a dog"}
    (note,) = artifact.summary["notes"]
    assert note.startswith("labels that look the same were merged: ")
    assert "'Cafe\\u0301' and 'Caf\\xe9'" in note
    assert "'dog' and 'dog '" in note
    assert "were merged" in artifact.read("data_card.md").decode()


def test_one_photographer_is_one_group(tmp_path: Path, shard: Callable[..., Artifact], picture: Picture) -> None:
    rows = ["path,label,who,id"]
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        who = [COMPOSED, DECOMPOSED][number % 2] if number < 8 else f"p{number}"
        rows.append(f"{number}.png,cat,{who},{number}")
    (tmp_path / "a.csv").write_text("\n".join(rows))
    source = {"kind": "manifest", "manifest": str(tmp_path / "a.csv"), "label_column": "label", "group_column": "who"}
    index = SampleIndex.open(shard(source={**source, "key_column": "id"}))
    ids = [id for id in range(len(index)) if int(index.key(id)) < 8]
    assert len({int(index.groups[id]) for id in ids}) == 1
    assert len({int(index.splits[id]) for id in ids}) == 1


def test_two_keys_that_look_the_same_are_one(tmp_path: Path, refused: Refused) -> None:
    assert safe_key(COMPOSED) == safe_key(DECOMPOSED)
    (tmp_path / "a.csv").write_text(f"path,label,id\n0.png,a,{COMPOSED}\n1.png,a,{DECOMPOSED}\n")
    source = {"kind": "manifest", "manifest": str(tmp_path / "a.csv"), "label_column": "label", "key_column": "id"}
    assert f"row 2: key {COMPOSED!r} is that of" in refused(**source)
