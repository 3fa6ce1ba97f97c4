"""What a delta may be added to, and how the newest is found."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.deltas.delta_base import find_base
from pipeline.sharding.stage import check_sharding

Picture = Callable[..., bytes]
Add = Callable[..., Artifact]
MakeFolder = Callable[[dict[str, int]], Path]


def resolved(source: dict[str, Any], base: str | None = None, **values: Any) -> ShardingConfig:
    given = {"source": source, "samples_per_shard": 7, "base": base, **values}
    return parse_config(ShardingConfig, given, "test").resolved()


def folder_source(folder: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "image_folder", "folder": str(folder), **more}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"duplicates": {"near": "remove"}}, "near duplicates are found by comparing all images"),
        ({"split": {"seed": 1}}, r"created with split\.seed=0, and a delta needs the settings of its base"),
        ({"split": {"rare_classes": "drop"}}, r"created with split\.rare_classes=\"refuse\", and"),
        ({"images": {"max_side": 8}}, r"created with images\.max_side=null"),
        ({"captions": {"min_chars": 3}}, r"created with captions\.min_chars="),
        ({"caps": {"per_label": 3}}, r"created with caps\.per_label=null"),
        ({"source": {"caption": "the {label}"}}, r"created with source\.caption=null"),
        ({"base": "shard-dataset/00000"}, "unknown artifact"),
    ],
)
def test_what_does_not_go_with_a_base_is_refused_before_any_work(
    store: ArtifactStore, image_folder: MakeFolder, values: dict[str, Any], says: str, add: Add
) -> None:
    folder = image_folder({"cat": 9, "dog": 9})
    base = add(store, folder_source(folder))
    source = folder_source(folder, **values.get("source", {}))
    given = {"base": base.name, **{name: value for name, value in values.items() if name != "source"}}
    config = parse_config(ShardingConfig, {"source": source, **given}, "test")
    with pytest.raises(InputError, match=says):
        check_sharding(config, store)
    with pytest.raises(InputError, match=says):
        find_base(config.resolved(), store)


def test_a_base_that_is_none_is_refused(
    store: ArtifactStore, image_folder: MakeFolder, tmp_path: Path, picture: Picture, add: Add
) -> None:
    folder = image_folder({"cat": 9, "dog": 9})
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as tar:
        for number in range(12):
            member = tarfile.TarInfo(f"{number}.jpg")
            data = picture(number, "JPEG")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    tars = {"kind": "webdataset", "tars": str(tmp_path / "tars")}
    copied = add(store, tars)
    with pytest.raises(InputError, match="is of a source of kind 'webdataset', not 'image_folder'"):
        add(store, folder_source(folder), copied.name)
    in_place = add(store, {**tars, "in_place": True})
    with pytest.raises(InputError, match="is an index of tars in place"):
        add(store, tars, in_place.name)
    with pytest.raises(InputError, match="tars that are indexed in place are not copied"):
        add(store, {**tars, "in_place": True}, "newest")

    def committed(stage: str) -> str:
        (tmp_path / "made").mkdir()
        facts: dict[str, Any] = {"config": {}, "inputs": {}, "summary": {}, "seconds": 0.0, "origin": {}}
        return store.commit(stage, "0" * 20, tmp_path / "made", **facts).name

    with pytest.raises(InputError, match="is an artifact of train-teacher; give one of shard-dataset"):
        add(store, tars, committed("train-teacher"))
    with pytest.raises(InputError, match="being of an older version"):
        add(store, tars, committed("shard-dataset"))
    with pytest.raises(InputError, match="base: string should match pattern"):
        resolved(tars, "latest")


def test_the_newest_is_the_last_of_this_folder_and_these_settings(
    store: ArtifactStore, image_folder: MakeFolder, picture: Picture, tmp_path: Path, add: Add
) -> None:
    folder = image_folder({"cat": 9, "dog": 9})
    assert find_base(resolved(folder_source(folder), "newest"), store) is None
    first = add(store, folder_source(folder), "newest")
    assert first.manifest["inputs"] == {}
    (folder / "cat" / "new.png").write_bytes(picture(77))
    second = add(store, folder_source(folder), "newest")
    assert second.manifest["inputs"] == {"base": first.name}
    add(store, folder_source(folder), split={"seed": 5})
    folder.rename(tmp_path / "other")
    (tmp_path / "other" / "cat" / "newer.png").write_bytes(picture(78))
    add(store, folder_source(tmp_path / "other"))
    (tmp_path / "other").rename(folder)
    found = find_base(resolved(folder_source(folder), "newest"), store)
    assert found is not None
    assert found.artifact.name == second.name
