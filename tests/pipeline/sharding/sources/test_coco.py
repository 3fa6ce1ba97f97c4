"""COCO: an image is one sample with all its captions, the split and the licence are those of the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import Artifact
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.base import Collection, Item

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
LICENCES = [
    {"id": 3, "name": "Attribution-NonCommercial", "url": "http://creativecommons.org/licenses/by-nc-nd/2.0/"},
    {"id": 7, "name": "No known copyright restrictions", "url": "http://flickr.com/commons/usage/"},
]


def write(folder: Path, name: str, photos: dict[str, bytes], first: int = 1) -> Path:
    """A part of COCO with these photos, five captions each, as captions_NAME.json has them."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / name).mkdir(exist_ok=True)
    images, annotations = [], []
    for number, (photo, data) in enumerate(photos.items(), start=first):
        file = f"{number:012d}.jpg"
        (folder / name / file).write_bytes(data)
        images.append(
            {
                "id": number,
                "file_name": file,
                "license": 3 if number % 2 else 7,
                "height": 427,
                "width": 640,
                "coco_url": f"http://images.cocodataset.org/{name}/{file}",
                "date_captured": "2013-11-14 17:02:52",
            }
        )
        for caption in range(5):
            # The file has them in no order of images.
            annotations.insert(0, {"image_id": number, "id": 10 * number + caption, "caption": f"{photo} {caption}"})
    path = folder / "annotations" / f"captions_{name}.json"
    path.write_text(json.dumps({"info": {}, "licenses": LICENCES, "images": images, "annotations": annotations}))
    (folder / "annotations" / f"instances_{name}.json").write_text("{}")
    return path


def test_five_captions_of_a_photo_are_one_sample(
    tmp_path: Path, shard: Callable[..., Artifact], photos: dict[str, bytes]
) -> None:
    write(tmp_path, "train2017", {"flower": photos["flower"]})
    write(tmp_path, "val2017", {"china": photos["china"]}, first=9)
    index = SampleIndex.open(
        shard(source={"kind": "coco", "folder": str(tmp_path)}, split={"val_share": 0, "test_share": 0})
    )
    assert [(index.key(id), index.captions(id)) for id in index.rows("train")] == [
        ("coco-1", [f"flower {n}" for n in (4, 3, 2, 1, 0)])
    ]
    assert [(index.key(id), len(index.captions(id))) for id in index.rows("test")] == [("coco-9", 5)]


def test_split_group_and_licence(tmp_path: Path, collect: Collect, photos: dict[str, bytes]) -> None:
    write(tmp_path, "train2017", photos)
    write(tmp_path, "val2017", photos, first=9)
    collection, items = collect(kind="coco", folder=str(tmp_path))
    assert [item.split for item in items] == ["train", "train", "test", "test"]
    assert [item.licence for item in items] == ["CC-BY-NC-ND-2.0", "No known copyright restrictions"] * 2
    assert [item.group for item in items] == ["coco-1", "coco-2", "coco-9", "coco-10"]
    assert "CC-BY-NC-ND-2.0" in collection.credits[1].licence
    assert items[3].read() == photos["flower"]
    _, items = collect(kind="coco", folder=str(tmp_path), parts=["val2017"], val_is="val")
    assert [item.split for item in items] == ["val", "val"]
    write(tmp_path, "test2017", photos, first=20)
    _, items = collect(kind="coco", folder=str(tmp_path))
    assert {item.name.split("/")[0]: item.split for item in items} == {
        "train2017": "train",
        "val2017": "val",
        "test2017": "test",
    }


def test_a_missing_photo_is_quarantined(tmp_path: Path, collect: Collect, photos: dict[str, bytes]) -> None:
    write(tmp_path, "val2017", photos)
    (tmp_path / "val2017" / "000000000002.jpg").unlink()
    _, items = collect(kind="coco", folder=str(tmp_path))
    with pytest.raises(FileNotFoundError):
        items[1].read()


def test_wrong_folders_and_files_are_refused(tmp_path: Path, refused: Refused, photos: dict[str, bytes]) -> None:
    def line(**values: Any) -> str:
        return refused(kind="coco", **{"folder": str(tmp_path), **values})

    assert "no such folder" in line(folder=str(tmp_path / "nowhere"))
    assert "annotations: no such file" in line()
    path = write(tmp_path, "val2017", photos)
    assert "no captions_train2017.json in" in line(parts=["train2017"])
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "images": whole["images"][:1]}))
    assert "1 captioned images are not among its images, e.g. id 2" in line()
    path.write_text(json.dumps({"annotations": []}))
    assert "not a COCO captions file (lacks 'images')" in line()
    path.write_text(path.read_text()[:-5])
    assert "not a COCO captions file" in line()
    (tmp_path / "val2017").rename(tmp_path / "val")
    assert "val2017: no such folder" in line()
