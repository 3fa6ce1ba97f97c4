"""Data sets of torchvision by name: its own splits, labels and captions; files laid out as it lays them."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import Artifact
from pipeline.errors import WorkError
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.torchvision_objects import dataset_names, parameters_of

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Reason = Callable[[Item], str]


def fashion(root: Path, counts: tuple[int, int] = (60, 20)) -> dict[str, np.ndarray]:
    """FashionMNIST/raw as torchvision leaves it, with scans of digits scaled to 28x28."""
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pictures, start = {}, 0
    for part, count in zip(("train", "t10k"), counts, strict=True):
        chosen = scans[start : start + count].reshape(-1, 8, 8).repeat(3, 1).repeat(3, 2)
        images = np.pad((chosen * 15.9375).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
        head = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        numbers = labels[start : start + count].astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            bytes((0, 0, 8, 1)) + count.to_bytes(4, "big") + numbers.tobytes()
        )
        pictures[part] = images
        start += count
    return pictures


def test_fashion_mnist_from_its_files_becomes_shards(tmp_path: Path, shard: Callable[..., Artifact]) -> None:
    fashion(tmp_path / "files")
    artifact = shard(
        source={"kind": "torchvision", "dataset": "FashionMNIST", "root": str(tmp_path / "files"), "licence": "MIT"},
        split={"val_share": 0},
    )
    index = SampleIndex.open(artifact)
    assert len(index.rows("train")) == 60
    assert len(index.rows("test")) == 20
    assert index.label_names[:2] == ("T-shirt/top", "Trouser")
    assert json.loads(artifact.read("data_card.json"))["credits"][0]["licence"] == "MIT"


def test_what_is_in_the_downloads_is_not_fetched_again(tmp_path: Path, collect: Collect) -> None:
    pictures = fashion(tmp_path / "downloads" / "torchvision")
    _, items = collect(kind="torchvision", dataset="FashionMNIST", limit=15, caption="a photo of a {label}")
    assert [item.split for item in items] == ["train"] * 15 + ["test"] * 15
    last = pickle.loads(pickle.dumps(items[-1]))
    assert (np.asarray(Image.open(io.BytesIO(last.read()))) == pictures["t10k"][14]).all()
    assert last.captions == (f"a photo of a {last.label}".replace("-", " "),)


def test_fake_data_has_no_splits_and_numbers_as_labels(collect: Collect) -> None:
    arguments = {"size": 12, "image_size": [3, 9, 7], "num_classes": 4}
    collection, items = collect(kind="torchvision", dataset="FakeData", arguments=arguments)
    assert collection.label_names == ("0", "1", "2", "3")
    assert {item.split for item in items} == {None}
    assert Image.open(io.BytesIO(items[3].read())).size == (7, 9)
    assert items[3].read() == items[3].read()
    _, items = collect(
        kind="torchvision",
        dataset="FakeData",
        arguments=arguments,
        splits={"train": {}, "test": {"random_offset": 99, "size": 5}},
    )
    assert [item.split for item in items] == ["train"] * 12 + ["test"] * 5


def test_texts_of_flickr30k_are_captions(tmp_path: Path, collect: Collect, photos: dict[str, bytes]) -> None:
    (tmp_path / "a.jpg").write_bytes(photos["china"])
    (tmp_path / "tokens.txt").write_text("".join(f"a.jpg#{n}\tcaption {n}\n" for n in range(5)))
    _, items = collect(
        kind="torchvision",
        dataset="Flickr30k",
        root=str(tmp_path),
        arguments={"ann_file": str(tmp_path / "tokens.txt")},
    )
    assert items[0].captions == tuple(f"caption {n}" for n in range(5))
    assert items[0].label is None


def test_its_own_splits_are_found_by_name(tmp_path: Path, collect: Collect, refused: Refused) -> None:
    for split, count in {"train": 3, "valid": 2, "test": 1}.items():
        for country in ("AD", "ZW"):
            folder = tmp_path / "country211" / split / country
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.jpg")
    collection, items = collect(kind="torchvision", dataset="Country211", root=str(tmp_path))
    assert collection.label_names == ("AD", "ZW")
    assert [item.split for item in items] == ["train"] * 6 + ["val"] * 4 + ["test"] * 2
    assert [item.label for item in items[:6]] == ["AD"] * 3 + ["ZW"] * 3
    # A data set whose training part is called otherwise is not taken without it.
    pets = refused(kind="torchvision", dataset="OxfordIIITPet", root=str(tmp_path))
    assert "trainval" in pets


def test_mistakes_are_told_in_one_line(tmp_path: Path, refused: Refused) -> None:
    def line(**values: Any) -> str:
        return refused(kind="torchvision", **values)

    assert "did you mean" in (told := line(dataset="FashionMnist"))
    assert "FashionMNIST" in told
    assert "unknown argument of torchvision.datasets.FakeData 'sizes'; did you mean size" in line(
        dataset="FakeData", arguments={"sizes": 3}
    )
    assert "root is set by the program" in line(dataset="FakeData", arguments={"root": "/tmp"})
    assert "transform is set by the program" in line(dataset="FakeData", splits={"train": {"transform": 1}})
    assert "no such folder" in line(dataset="CIFAR10", root=str(tmp_path / "nowhere"))
    assert "holds no file" in line(dataset="CIFAR10", root=str(tmp_path))
    (tmp_path / "a.txt").write_text("no CIFAR")
    assert "torchvision cannot download it" in line(dataset="CIFAR10", root=str(tmp_path))
    assert "Valid values are" in line(dataset="EMNIST", root=str(tmp_path), arguments={"split": "letter"})


def test_a_failed_fetch_is_told_with_what_to_do(collect: Collect, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def no_network(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried https://...")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    assert issubclass(torchvision.datasets.KMNIST, torchvision.datasets.MNIST)
    with pytest.raises(WorkError, match=r"KMNIST cannot be fetched \(Error downloading.*source\.root") as caught:
        collect(kind="torchvision", dataset="KMNIST")
    assert "\n" not in str(caught.value)


def test_arguments_that_a_class_passes_on_are_known() -> None:
    from torchvision.datasets import EMNIST, QMNIST

    assert {"split", "train", "download"} <= parameters_of(EMNIST)
    assert {"what", "train"} <= parameters_of(QMNIST)
    assert {"CIFAR10", "Flowers102"} <= dataset_names()
    assert "VisionDataset" not in dataset_names()


def test_checking_a_name_does_not_import_torch() -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from pipeline.sharding.sources.torchvision_datasets import TorchvisionConfig;"
        "TorchvisionConfig(dataset='CIFAR10').check(Path('/nowhere'));"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    "error",
    [
        AssertionError(),
        RuntimeError("cannot\nallocate"),
        NotImplementedError("no such codec"),
        subprocess.CalledProcessError(1, ["gs", "-q"]),
        RecursionError(),
        ZeroDivisionError("division by zero"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_data_set_raises_for_an_image_is_of_that_image(
    error: Exception, tmp_path: Path, collect: Collect, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import FashionMNIST

    fashion(tmp_path / "files", (3, 1))
    give = FashionMNIST.__getitem__

    def failing(self: Any, number: int) -> Any:
        if number == 1:
            raise error
        return give(self, number)

    monkeypatch.setattr(FashionMNIST, "__getitem__", failing)
    _, items = collect(kind="torchvision", dataset="FashionMNIST", root=str(tmp_path / "files"))
    assert reason(items[1]).splitlines() == [reason(items[1])] != [""]
    assert items[2].read()


def test_a_damaged_image_of_a_data_set_whose_labels_need_it_is_quarantined(
    tmp_path: Path, shard: Callable[..., Artifact], photos: dict[str, bytes], picture: Callable[..., bytes]
) -> None:
    folder = tmp_path / "files" / "caltech101" / "101_ObjectCategories"
    for name in ("BACKGROUND_Google", "ant", "crab"):
        (folder / name).mkdir(parents=True)
        for number in range(1, 13):
            (folder / name / f"image_{number:04d}.jpg").write_bytes(picture(ord(name[0]) * 100 + number, "JPEG"))
    (folder / "crab" / "image_0005.jpg").write_bytes(b"no image at all")
    artifact = shard(
        source={"kind": "torchvision", "dataset": "Caltech101", "root": str(tmp_path / "files")},
        max_unreadable_share=0.1,
    )
    assert artifact.summary["unreadable"] == 1
    assert SampleIndex.open(artifact).label_names == ("0", "1")
