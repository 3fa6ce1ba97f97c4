"""A folder of images with a table of their labels: which tables are read, and what is said of those that are not."""

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


@pytest.fixture
def flat(tmp_path: Path, picture: Callable[..., bytes]) -> Callable[..., Path]:
    """flat({"labels.csv": "file,label\\n..."}): a folder with a.png to f.png and these files."""

    def make(tables: dict[str, str], below: str = "") -> Path:
        root = tmp_path / "pets"
        (root / below).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate("abcdef"):
            (root / below / f"{name}.png").write_bytes(picture(number))
        for name, text in tables.items():
            (root / name).write_text(text)
        return root

    return make


def source(folder: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "image_folder", "folder": str(folder), **more}


LABELLED = "file,label\na.png,cat\nb.png,dog\nc.png,cat\n"


def test_a_table_labels_the_images_next_to_it(flat: Callable[..., Path], collect: Collect) -> None:
    collection, items = collect(**source(flat({"labels.csv": LABELLED}), caption="a {label}"))
    assert [(item.name, item.label, item.captions) for item in items] == [
        ("a.png", "cat", ("a cat",)), ("b.png", "dog", ("a dog",)), ("c.png", "cat", ("a cat",))
    ]  # fmt: skip
    assert (collection.title, collection.label_names) == ("pets", ("cat", "dog"))
    assert collection.notes == (
        "labels.csv has the labels (column label) of file; it does not name 3 images: d.png, e.png, f.png",
    )


@pytest.mark.parametrize("path", ["a.png", "images/a.png"])
def test_the_images_may_be_in_one_folder_below(flat: Callable[..., Path], collect: Collect, path: str) -> None:
    prefix = path.removesuffix("a.png")
    table = f"Breed\tid\tfilename\nX\t7\t{prefix}a.png\nY\t8\t{prefix}b.png\n"
    _, items = collect(**source(flat({"all.TSV": table}, below="images")))
    assert [(item.label, len(item.read()) > 0) for item in items] == [("X", True), ("Y", True)]


def test_a_column_of_splits_is_used(flat: Callable[..., Path], shard: Callable[..., Artifact]) -> None:
    rows = "".join(f"{name}.png,{'xy'[place % 2]},{split}\n" for place, (name, split) in enumerate(
        zip("abcdef", ("train", "train", "valid", "valid", "test", "test"), strict=True)
    ))  # fmt: skip
    artifact = shard(source=source(flat({"pets.csv": f"image,kind_of_pet,Split\n{rows}"})))
    index = SampleIndex.open(artifact)
    assert {split: index.rows(split).size for split in ("train", "val", "test")} == {"train": 2, "val": 2, "test": 2}
    assert artifact.summary["notes"] == [
        "pets.csv has the labels (column kind_of_pet) and the splits (column Split) of image"
    ]


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"a.csv": LABELLED, "b.csv": LABELLED}, "has a.csv, b.csv; keep the table with the labels only, or set"),
        ({"a.csv": "id,label\n1,cat\n"}, "no column has the names of images in"),
        ({"a.csv": "file,mask,label\na.png,b.png,cat\n"}, "file, mask name files; its columns are file, mask, label"),
        (
            {"a.csv": "file,age,colour\na.png,3,red\n"},
            "column file has the files, and age, colour may each be the label",
        ),
        ({"a.csv": "file\na.png\n"}, "column file has the files, and no other column is left for the label"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_what_to_set(
    flat: Callable[..., Path], refused: Refused, tables: dict[str, str], says: str
) -> None:
    line = refused(**source(flat(tables)))
    assert says in line
    assert "data.source.kind=manifest, data.source.manifest=" in line
    assert "data.source.label_column, or data.source.layout=classes if the table has no labels" in line


def test_a_split_column_with_another_word_is_refused(flat: Callable[..., Path], refused: Refused) -> None:
    table = "file,label,split\na.png,cat,train\nb.png,dog,unused\nc.png,cat,test\n"
    assert "column split has 'unused', which is not train, val or test" in refused(**source(flat({"a.csv": table})))


def test_a_column_of_long_texts_and_one_of_folds_are_no_splits_and_no_files(
    flat: Callable[..., Path], collect: Collect
) -> None:
    text = "a long description " * 30
    table = f"file,label,fold\na.png,cat,1\nb.png,{text},2\nc.png,cat,3\n"
    _, items = collect(**source(flat({"a.csv": table})))
    assert [(item.label, item.split) for item in items] == [("cat", None), (text.strip(), None), ("cat", None)]


def test_a_table_next_to_folders_of_classes_is_read_only_on_request(
    flat: Callable[..., Path], collect: Collect, refused: Refused, picture: Callable[..., bytes]
) -> None:
    folder = flat({"labels.csv": LABELLED})
    for number, label in enumerate(("big", "small")):
        (folder / label).mkdir()
        (folder / label / "x.png").write_bytes(picture(100 + number))
    assert collect(**source(folder))[0].label_names == ("big", "small")
    assert collect(**source(folder, layout="table"))[0].label_names == ("cat", "dog")
    (folder / "labels.csv").unlink()
    assert "has no CSV or TSV file" in refused(**source(folder, layout="table"))


def test_changed_images_and_labels_are_noticed(flat: Callable[..., Path], picture: Callable[..., bytes]) -> None:
    from pipeline.sharding.sources.image_folder import ImageFolderConfig

    folder = flat({"labels.csv": LABELLED})
    config = ImageFolderConfig(folder=folder)
    digests = [config.resolved().fingerprint]
    (folder / "a.png").write_bytes(picture(50) + b"longer")
    digests.append(config.resolved().fingerprint)
    (folder / "labels.csv").write_text(LABELLED + "d.png,dog\n")
    digests.append(config.resolved().fingerprint)
    assert len(set(digests)) == 3
