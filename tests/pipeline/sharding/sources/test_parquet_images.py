"""Parquet as Hugging Face's datasets writes it: the metadata say what the columns are; images are never read twice."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.artifacts import Artifact
from pipeline.sharding.format.file_addresses import stat
from pipeline.sharding.format.index import SPLITS, SampleIndex, content_hash
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.parquet_cells import read_cell

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Reason = Callable[[Item], str]
Picture = Callable[..., bytes]
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write(path: Path, images: list[bytes | None], names: tuple[str, ...] = (), **columns: list[Any]) -> Path:
    """A file with the schema and metadata of `Dataset.to_parquet`."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(images)], image)
    table = pa.table({"image": cells, **columns})
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for name in columns:
        features[name] = {"names": names, "_type": "ClassLabel"} if name == "label" else {"_type": "Value"}
    path.parent.mkdir(parents=True, exist_ok=True)
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(noted), path, row_group_size=100)
    return path


def digits(count: int) -> tuple[list[bytes], list[int]]:
    """Scans of handwritten digits that scikit-learn ships, 8x8 with 17 greys, as PNG."""
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    images = []
    for scan in scans[:count]:
        buffer = io.BytesIO()
        Image.fromarray((scan.reshape(8, 8) * 15.9375).astype(np.uint8)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    return images, labels[:count].tolist()


def test_digits_as_datasets_writes_them_become_shards(tmp_path: Path, shard: Callable[..., Artifact]) -> None:
    images, labels = digits(300)
    write(tmp_path / "digits/data/train-00000-of-00001.parquet", images[:220], DIGITS, label=labels[:220])
    write(tmp_path / "digits/data/test-00000-of-00001.parquet", images[220:], DIGITS, label=labels[220:])
    index = SampleIndex.open(shard(source={"kind": "parquet_images", "files": str(tmp_path / "digits")}))
    assert index.label_names == DIGITS
    assert len(index.rows("test")) == len(set(images[220:]))
    assert set(index.splits.tolist()) == {SPLITS.index(split) for split in SPLITS}
    label_of = {content_hash(data): label for data, label in zip(images, labels, strict=True)}
    assert all(index.labels[id] == label_of[index.content_hash(id)] for id in index.rows())


def test_captions_splits_and_what_is_missing(
    tmp_path: Path, collect: Collect, reason: Reason, picture: Picture
) -> None:
    pictures = [picture(n) for n in range(3)]
    write(tmp_path / "pairs/validation-00000-of-00001.parquet", [*pictures, None], text=["a"] * 4)
    write(tmp_path / "pairs/train-00000-of-00001.parquet", pictures, text=["one", "", None])
    collection, items = collect(kind="parquet_images", files=str(tmp_path / "pairs"), caption_columns=["text"])
    assert collection.title == "pairs"
    assert [item.split for item in items] == ["train"] * 3 + ["val"] * 4
    assert [item.captions for item in items[:3]] == [("one",), ("",), ()]
    assert "holds no bytes, only the path '3.png'" in reason(items[6])
    assert [pickle.loads(pickle.dumps(item)).read() for item in items[:3]] == pictures


def test_a_label_of_minus_one_is_none(tmp_path: Path, collect: Collect, picture: Picture) -> None:
    write(tmp_path / "a.parquet", [picture(1), picture(2)], ("cat", "dog"), label=[-1, 1])
    _, items = collect(kind="parquet_images", files=str(tmp_path / "a.parquet"))
    assert [item.label for item in items] == [None, "dog"]
    assert items[0].read() == picture(1)


def test_files_without_metadata_name_their_columns(tmp_path: Path, collect: Collect, refused: Refused) -> None:
    pq.write_table(pa.table({"img": [b"x"], "kind": ["cat"], "n": [1]}), tmp_path / "a.parquet")

    def line(**values: Any) -> str:
        return refused(kind="parquet_images", files=str(tmp_path / "a.parquet"), **values)

    assert "has no column 'image'; it has img, kind, n" in line()
    assert "'n' is int64, not bytes" in line(image_column="n")
    assert "name label_column or caption_columns among kind, n" in line(image_column="img")
    assert "label_column: " in line(image_column="img", label_column="labels")
    assert "caption_columns.0: " in line(image_column="img", caption_columns=["text"])
    collection, items = collect(
        kind="parquet_images", files=str(tmp_path / "a.parquet"), image_column="img", label_column="kind"
    )
    assert (collection.label_names, items[0].read()) == (("cat",), b"x")


def test_what_is_no_parquet_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no")
    assert "not a Parquet file" in refused(kind="parquet_images", files=str(tmp_path / "a.parquet"))
    assert "no such file" in refused(kind="parquet_images", files=str(tmp_path / "b.parquet"))
    (tmp_path / "empty").mkdir()
    assert "holds no file" in refused(kind="parquet_images", files=str(tmp_path / "empty"))


def test_threads_read_a_large_row_group_page_by_page(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    images: list[bytes] = [noise.bytes(50_000) for _ in range(600)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images}), path, row_group_size=600, data_page_size=1 << 16, write_batch_size=16)
    file = stat(str(path))
    before = pa.total_allocated_bytes()
    peaks = []

    def read(part: int) -> None:
        for number in range(200 * part, 200 * part + 200):
            assert read_cell(file, "image", number) == images[number]
            peaks.append(pa.total_allocated_bytes() - before)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(read, range(3)))
    assert len(peaks) == 600
    # Three times the 30 MB of images, if each thread held its row group.
    assert max(peaks) < 20 << 20
