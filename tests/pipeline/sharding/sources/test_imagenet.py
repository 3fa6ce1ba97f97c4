"""ImageNet's layout: classes by WNID in torchvision's order, and val/ by each of the label files that there are."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.artifacts import Artifact
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.imagenet_labels import read_val_labels

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Reason = Callable[[Item], str]
Picture = Callable[..., bytes]

WNIDS = ["n01440764", "n02012849", "n03126707"]
NAMES = (
    "n01440764 tench, Tinca tinca\n"
    "n02012849 crane\n"
    "n03126707 crane\n"
    "n01484850 great white shark, white shark, man-eater\n"
)
# What the three images of val/ show.
TRUTH = ["n03126707", "n01440764", "n02012849"]


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Path:
    root = tmp_path / "imagenet"
    for place, wnid in enumerate(WNIDS):
        (root / "train" / wnid).mkdir(parents=True)
        for number in range(6):
            path = root / "train" / wnid / f"{wnid}_{number}.JPEG"
            path.write_bytes(picture(100 * place + number, "JPEG"))
    (root / "val").mkdir()
    for number in range(3):
        (root / "val" / f"ILSVRC2012_val_{number + 1:08d}.JPEG").write_bytes(picture(900 + number, "JPEG"))
    (root / "LOC_synset_mapping.txt").write_text(NAMES)
    return root


def kaggle(root: Path) -> None:
    rows = [f"ILSVRC2012_val_{n:08d},{wnid} 1 2 3 4 {wnid} 5 6 7 8 " for n, wnid in enumerate(TRUTH, start=1)]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]))


def caffe_by_wnid(root: Path) -> None:
    lines = [f"ILSVRC2012_val_{n:08d}.JPEG {wnid}" for n, wnid in enumerate(TRUTH, start=1)]
    (root / "val.txt").write_text("\n".join(lines))


def devkit(root: Path, classes: list[str] = WNIDS) -> Path:
    """data/ of ILSVRC2012_devkit_t12: IDs in an order of their own, and inner nodes after the leaves."""
    ids = {wnid: number for number, wnid in enumerate(reversed(classes), start=1)}
    rows = [(number, wnid, f"words of {wnid}", "gloss", 0, [0.0], 1, 1300) for wnid, number in ids.items()]
    rows.append((len(rows) + 1, "n00001740", "entity", "gloss", 2, [1.0, 2.0], 2, 0))
    kinds = [
        (name, object)
        for name in (
            "ILSVRC2012_ID",
            "WNID",
            "words",
            "gloss",
            "num_children",
            "children",
            "wordnet_height",
            "num_train_images",
        )
    ]
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(str(ids[wnid]) for wnid in TRUTH) + "\n")
    return folder


def by_class(root: Path) -> None:
    for number, wnid in enumerate(TRUTH, start=1):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        (root / "val" / wnid).mkdir()
        (root / "val" / name).rename(root / "val" / wnid / name)


@pytest.mark.parametrize("form", [kaggle, caffe_by_wnid, devkit, by_class])
def test_every_form_of_val_labels_says_the_same(form: Callable[[Path], Any], folder: Path, collect: Collect) -> None:
    form(folder)
    collection, items = collect(kind="imagenet", folder=str(folder))
    assert collection.label_names == ("tench", "crane (n02012849)", "crane (n03126707)")
    of_val = {Path(item.name).stem: item for item in items if item.split == "test"}
    assert [of_val[f"ILSVRC2012_val_{n:08d}"].extra["wnid"] for n in (1, 2, 3)] == TRUTH
    assert [of_val[f"ILSVRC2012_val_{n:08d}"].label for n in (1, 2, 3)] == [
        "crane (n03126707)",
        "tench",
        "crane (n02012849)",
    ]
    assert sum(item.split == "train" for item in items) == 18


def test_the_devkits_numbers_are_read_as_torchvision_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torchvision.datasets import imagenet

    folder = devkit(tmp_path)
    with tarfile.open(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    # All but the digest of the real archive.
    monkeypatch.setattr(imagenet, "_verify_archive", lambda root, file, md5: None)
    imagenet.parse_devkit_archive(tmp_path)
    _, theirs = torch.load(tmp_path / imagenet.META_FILE)
    ours = read_val_labels(folder / "ILSVRC2012_validation_ground_truth.txt", WNIDS)
    assert list(ours.values()) == theirs == TRUTH


def test_caffes_numbers_are_places_among_the_thousand(tmp_path: Path) -> None:
    wnids = [f"n{number:08d}" for number in range(1000)]
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\nILSVRC2012_val_00000002.JPEG 970\n")
    assert list(read_val_labels(tmp_path / "val.txt", wnids).values()) == ["n00000065", "n00000970"]


def test_it_becomes_shards_with_val_as_test(folder: Path, shard: Callable[..., Artifact]) -> None:
    kaggle(folder)
    source = {"kind": "imagenet", "folder": str(folder), "caption": "a photo of {a_label}, {label}"}
    index = SampleIndex.open(shard(source=source))
    assert len(index.rows("test")) == 3
    assert {caption for id in index.rows() for caption in index.captions(id)} == {
        "a photo of a tench, tench",
        "a photo of a crane, crane",
    }


def test_the_kaggle_archive_and_wnids_as_labels(folder: Path, tmp_path: Path, collect: Collect) -> None:
    kaggle(folder)
    images = tmp_path / "archive" / "ILSVRC" / "Data" / "CLS-LOC"
    images.parent.mkdir(parents=True)
    folder.rename(images)
    for name in ("LOC_val_solution.csv", "LOC_synset_mapping.txt"):
        (images / name).rename(tmp_path / "archive" / name)
    collection, items = collect(kind="imagenet", folder=str(tmp_path / "archive"), labels="wnid", val_is="val")
    assert collection.label_names == tuple(WNIDS)
    assert [item.label for item in items if item.split == "val"] == TRUTH


def test_an_image_without_label_is_quarantined(
    folder: Path, collect: Collect, reason: Reason, picture: Picture
) -> None:
    kaggle(folder)
    (folder / "val" / "ILSVRC2012_val_00000004.JPEG").write_bytes(picture(1, "JPEG"))
    solution = folder / "LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace("n02012849", "n07747607"))
    _, items = collect(kind="imagenet", folder=str(folder))
    assert reason(items[-1]) == "the file of labels does not name ILSVRC2012_val_00000004"
    assert reason(items[-2]) == "n07747607 is no class of train/"


def test_wrong_folders_and_files_are_refused(folder: Path, tmp_path: Path, refused: Refused) -> None:
    def line(**values: Any) -> str:
        return refused(kind="imagenet", **{"folder": str(folder), **values})

    assert "no such folder" in line(folder=str(tmp_path / "nowhere"))
    assert "holds no train/" in line(folder=str(tmp_path))
    assert "no labels of val/" in line()
    kit = devkit(folder)
    (kit / "meta.mat").rename(kit / "meta")
    assert "the devkit's meta.mat defines its class numbers" in line()
    (kit / "meta.mat").write_bytes(b"no mat file" * 100)
    assert "not the devkit's meta.mat" in line()
    (folder / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\n")
    assert "train/ has 3; use LOC_val_solution.csv" in line()
    (folder / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG\n")
    assert "line 1:" in line()
    kaggle(folder)
    (folder / "LOC_synset_mapping.txt").write_text(NAMES.replace("n02012849", "n02012848"))
    assert "does not name n02012849" in line()
    (folder / "LOC_synset_mapping.txt").write_text("tench\n")
    assert "line 1: not a WNID and its words" in line()
    (folder / "LOC_synset_mapping.txt").unlink()
    assert "set labels=wnid" in line()
    (folder / "train" / "cats").mkdir()
    assert "image_folder" in line(labels="wnid")
