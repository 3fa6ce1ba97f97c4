"""Files that a table names lie in its own folder, in that of the images or in roots; nothing else is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import Artifact
from pipeline.errors import InputError
from pipeline.sharding.sources.base import Collection, Item

Collect = Callable[..., tuple[Collection, list[Item]]]
Refused = Callable[..., str]
Reason = Callable[[Item], str]
Picture = Callable[..., bytes]

SECRET = "root:$y$j9T$secret:19700:0:99999:7:::"
FORMS = ("manifest", "jsonl", "captions_tsv", "coco")


@pytest.fixture
def data(tmp_path: Path, picture: Picture) -> Path:
    """A folder with an image, links that lead out and one that stays, beside a folder with a secret and an image."""
    folder, other = tmp_path / "data", tmp_path / "other"
    for one in (folder / "val", other / "deep", tmp_path / "data-2"):
        one.mkdir(parents=True)
    (folder / "val" / "a.png").write_bytes(picture(1))
    (other / "b.png").write_bytes(picture(2))
    (other / "deep" / "c.png").write_bytes(picture(3))
    (other / "secret").write_text(SECRET)
    (tmp_path / "data-2" / "b.png").write_bytes(picture(2))
    (folder / "val" / "link.png").symlink_to(other / "secret")
    (folder / "val" / "deep").symlink_to(other / "deep")
    (folder / "val" / "inner.png").symlink_to("a.png")
    return folder


def source(form: str, folder: Path, paths: list[str], **more: Any) -> dict[str, Any]:
    """The settings of a source that names files, whose list lies in the folder and whose images lie in folder/val."""
    if form == "coco":
        images = [{"id": number, "file_name": path} for number, path in enumerate(paths)]
        captions = [{"image_id": number, "caption": f"caption {number}"} for number in range(len(paths))]
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / "captions_val.json").write_text(
            json.dumps({"images": images, "annotations": captions})
        )
        return {"kind": "coco", "folder": str(folder), **more}
    if form == "captions_tsv":
        (folder / "list.tsv").write_text("".join(f"caption {n}\t{path}\n" for n, path in enumerate(paths)))
        return {"kind": "captions_tsv", "file": str(folder / "list.tsv"), "images": str(folder / "val"), **more}
    rows = [{"path": path, "caption": f"caption {number}"} for number, path in enumerate(paths)]
    name = folder / ("list.jsonl" if form == "jsonl" else "list.csv")
    csv = "path,caption\n" + "".join(f"{row['path']},{row['caption']}\n" for row in rows)
    name.write_text("\n".join(map(json.dumps, rows)) if form == "jsonl" else csv)
    values = {"kind": "manifest", "manifest": str(name), "images": str(folder / "val"), "caption_columns": ["caption"]}
    return {**values, **more}


@pytest.mark.parametrize("form", FORMS)
def test_what_leads_out_of_the_folder_is_not_read(form: str, data: Path, collect: Collect, reason: Reason) -> None:
    other = data.parent / "other"
    inside = ["a.png", "./a.png", "../val/a.png", str(data / "val" / "a.png"), "inner.png"]
    outside = [
        str(other / "b.png"), "../../other/secret", "/etc/passwd", "a.png/../../../other/b.png", "link.png",
        "deep/c.png", str(data.parent / "data-2" / "b.png"), "s3://elsewhere/b.png", "/proc/self/environ",
        "file:///etc/passwd", f"file://{other}/b.png", "https://example.org/b.png", "data:/b.png",
    ]  # fmt: skip
    _, items = collect(**source(form, data, [*inside, *outside]))
    for item in items[: len(inside)]:
        assert item.read()
    for item in items[len(inside) :]:
        why = reason(item)
        assert any(said in why for said in ("lies outside", "leads out of", "no known scheme", "a web address"))
        assert str(other) not in why
        assert "secret" not in why


@pytest.mark.parametrize("form", FORMS)
def test_roots_say_where_else_files_may_lie(
    form: str, data: Path, collect: Collect, reason: Reason, refused: Refused, picture: Picture
) -> None:
    other = data.parent / "other"
    paths = [str(other / "b.png"), "deep/c.png", "/etc/passwd"]
    if form != "coco":
        assert "lies outside" in refused(**source(form, data, paths[:1]))
    _, items = collect(**source(form, data, paths, roots=[str(other)]))
    assert [item.read() for item in items[:2]] == [picture(2), picture(3)]
    assert "name its folder in roots" in reason(items[2])
    _, items = collect(**source(form, data, paths, roots=["/"]))
    assert b"root:" in items[2].read()


def test_a_folder_that_is_itself_a_link_is_what_it_leads_to(
    data: Path, tmp_path: Path, collect: Collect, refused: Refused, picture: Picture
) -> None:
    (tmp_path / "link").symlink_to(data)
    for path in ("a.png", str(data / "val" / "a.png")):
        _, items = collect(**source("manifest", tmp_path / "link", [path]))
        assert items[0].read() == picture(1)
    (data / "train").symlink_to(tmp_path / "other")
    values = source("coco", data, ["b.png"])
    (data / "annotations" / "captions_val.json").rename(data / "annotations" / "captions_train.json")
    assert f"{data / 'train'}: is a link that leads out of {data}" in refused(**values)
    _, items = collect(**values, roots=[str(tmp_path / "other")])
    assert items[0].read() == picture(2)


def test_no_byte_of_a_file_stands_in_the_quarantine(
    data: Path, shard: Callable[..., Artifact], picture: Picture
) -> None:
    for number in range(30):
        (data / "val" / f"{number}.png").write_bytes(picture(100 + number))
    (data / "val" / "text.png").write_text(SECRET)
    (data / "val" / "half.png").write_bytes(b"P5 " + SECRET.encode())
    paths = [*(f"{number}.png" for number in range(30)), "text.png", "half.png", "link.png", "../../other/secret"]
    artifact = shard(source=source("manifest", data, paths), max_unreadable_share=0.5)
    rows = pq.read_table(artifact.path("quarantine.parquet")).to_pylist()
    assert [row["name"] for row in rows] == paths[30:]
    for name in ("quarantine.parquet", "data_card.json", "data_card.md", "data_card.html"):
        told = artifact.read(name) if not name.endswith("parquet") else str(rows).encode()
        assert b"root:" not in told
        assert b"$y$" not in told


def test_roots_are_part_of_the_key_and_null_keeps_it(data: Path, collect: Collect) -> None:
    from pipeline.config import canonical_json, parse_config
    from pipeline.sharding.config import ShardingConfig

    def key(**more: Any) -> str:
        values = {"source": source("manifest", data, ["a.png"], **more)}
        return canonical_json(parse_config(ShardingConfig, values, "test").resolved())

    assert "roots" not in key()
    assert key() == key(roots=[])
    assert key(roots=[str(data.parent)]) != key()


def test_a_registered_reason_for_no_artifact_is_one_line() -> None:
    from pipeline.artifacts import ArtifactStore
    from pipeline.import_weights.sources import find_weights

    for reference in ("../../x", "..", "train-teacher/../x", "x" * 3000, "/etc/passwd"):
        with pytest.raises(InputError, match="names no artifact"):
            find_weights(f"artifact:{reference}", ArtifactStore.open("unused"))
