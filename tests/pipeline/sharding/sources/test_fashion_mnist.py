"""Fashion-MNIST's files are read as they are published; t10k is the test split."""

from __future__ import annotations

import gzip
import io
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import Artifact
from pipeline.errors import InputError, WorkError
from pipeline.progress import silent
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.sources import fashion_mnist
from pipeline.sharding.sources.fashion_mnist import LABELS, FashionMnistConfig


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with files of the published form: 8 images a class for training, 3 for test."""
    folder = tmp_path / "fashion"
    folder.mkdir()
    random = np.random.default_rng(0)
    for part, count in (("train", 80), ("t10k", 30)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = bytes((0, 0, 8, 3)) + b"".join(size.to_bytes(4, "big") for size in images.shape)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
        head = bytes((0, 0, 8, 1)) + count.to_bytes(4, "big")
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.tobytes()))
    return folder


def test_splits_pixels_and_labels_are_the_published_ones(files: Path, shard: Callable[..., Artifact]) -> None:
    artifact = shard(source={"kind": "fashion_mnist", "folder": str(files)}, split={"val_share": 0.25})
    index = SampleIndex.open(artifact)
    assert index.label_names == LABELS
    assert index.rows("test").size == 30
    assert index.rows("train").size + index.rows("val").size == 80
    assert all(index.key(id).startswith("t10k") for id in index.rows("test"))
    published = gzip.decompress((files / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    for id in index.rows("train"):
        number = int(index.key(id).removeprefix("train-"))
        data = artifact.read(index.shard_names[index.shards[id]])[index.offsets[id] :][: index.lengths[id]]
        image = Image.open(io.BytesIO(data))
        assert image.mode == "L"
        assert np.asarray(image).tobytes() == published[number * 784 : (number + 1) * 784]
        assert index.labels[id] == number % 10


def test_limit_is_per_class_and_part(files: Path, tmp_path: Path) -> None:
    collection = FashionMnistConfig(folder=files, limit=2).collect(tmp_path, silent)
    items = list(collection.items())
    assert collection.total == len(items) == 40
    counts = {(item.label, item.split): 0 for item in items}
    for item in items:
        counts[item.label, item.split] += 1
    assert set(counts.values()) == {2}
    assert next(item for item in items if item.label == "trouser").captions == ("a photo of a pair of trousers",)


def damaged(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-100], "not a whole gzip file"),
        (lambda data: b"plain", "not a whole gzip file"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), "not an IDX file"),
        (lambda data: gzip.compress(b"\0\0\x0d\3" + gzip.decompress(data)[4:]), "not an IDX file"),
    ],
)
def test_damaged_files_are_named(files: Path, tmp_path: Path, change: Any, said: str) -> None:
    damaged(files, "train-images-idx3-ubyte.gz", change)
    with pytest.raises(InputError, match=f"train-images-idx3-ubyte.gz: {said}"):
        FashionMnistConfig(folder=files).collect(tmp_path, silent)


def test_missing_files_are_refused_before_any_work(files: Path, tmp_path: Path) -> None:
    (files / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"lacks t10k-labels-idx1-ubyte\.gz"):
        FashionMnistConfig(folder=files).check(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        FashionMnistConfig(folder=tmp_path / "nowhere").resolved()


@pytest.mark.servers
def test_without_a_network_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib keeps the proxies of its first request: later tests of this process would ask this one.
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(WorkError, match=r"cannot be fetched .*dataset-fashion-mnist") as caught:
        FashionMnistConfig().collect(tmp_path, silent)
    assert "\n" not in str(caught.value)
