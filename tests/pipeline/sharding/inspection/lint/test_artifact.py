"""An artifact's index, manifest and tars are compared: each kind of disagreement is reported with key and byte."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.sharding.format.index import SampleIndex, SampleRow
from pipeline.sharding.inspection.lint.findings import CODES, Findings
from pipeline.sharding.inspection.lint.lint import lint
from pipeline.sharding.inspection.lint.target import Target, artifact_target, tars_target
from pipeline.storage import open_storage
from pipeline.storage.sha256 import file_sha256
from tests.small_shards import index_of

Shard = Callable[..., Artifact]
Picture = Callable[..., bytes]


@pytest.fixture
def artifact(image_folder: Callable[..., Path], shard: Shard) -> Artifact:
    return shard(source={"kind": "image_folder", "folder": str(image_folder({"cat": 12, "dog": 12}))})


def found(artifact: Artifact, *, deep: bool = True, limit: int = 50) -> Findings:
    findings = Findings(limit)
    lint([artifact_target(artifact, findings)], findings, deep=deep, threads=2)
    return findings


def errors(findings: Findings) -> set[str]:
    return {name for name in findings.counts if CODES[name].severity == "error"}


def with_rows(artifact: Artifact, change: Callable[[list[SampleRow]], list[SampleRow]], **names: Any) -> Findings:
    """The findings of the artifact's tars next to a changed index."""
    index = SampleIndex.open(artifact)
    rows = change([index.row(id) for id in range(len(index))])
    changed = index_of(
        rows,
        shard_names=names.get("shards", index.shard_names),
        label_names=names.get("labels", index.label_names),
        taxonomy=index.taxonomy,
    )
    findings = Findings(50)
    target = artifact_target(artifact, findings)
    lint([Target(target.name, target.shards, artifact, changed)], findings, threads=1)
    return findings


def first(**values: Any) -> Callable[[list[SampleRow]], list[SampleRow]]:
    return lambda rows: [replace(rows[0], **values), *rows[1:]]


@pytest.mark.parametrize(
    ("code", "values", "message"),
    [
        ("index-length", {"length": 77}, "says 77 bytes, the tar"),
        ("index-key", {"key": "another"}, "row 0 is 'another', the sample here"),
        ("index-hash", {"content_hash": "0" * 32}, "has content hash 000000000000..."),
        ("index-size", {"width": 99}, "row 0 says 99x10 pixels, the image has 12x10"),
        ("index-captions", {"captions": ("a lie",)}, "1 caption unlike the .json's"),
        ("index-split", {"split": 1}, "row 0 says val, the shard train"),
        ("index-range", {"label": 7}, "row 0: label 7, which must be at least -1 and below 2"),
        ("index-range", {"height": 0}, "row 0: height 0, which must be at least 1"),
        ("index-range", {"node": 99}, "row 0: node 99"),
    ],
)
def test_a_row_that_disagrees_with_its_image_is_reported(
    artifact: Artifact, code: str, values: dict[str, Any], message: str
) -> None:
    findings = with_rows(artifact, first(**values))
    reported = findings.of(code)
    row = SampleIndex.open(artifact).row(0)
    assert [(finding.key, finding.byte) for finding in reported] == [(values.get("key", row.key), row.offset)]
    assert message in reported[0].message
    # A wrong size of a hand-made row shows as the range and as the size.
    assert errors(findings) <= {code, "index-size"}


def test_a_wrong_label_is_reported(artifact: Artifact) -> None:
    label = SampleIndex.open(artifact).row(0).label
    findings = with_rows(artifact, first(label=1 - label))
    assert errors(findings) == {"index-label"}
    assert findings.counts["index-label"] == 1


def test_a_row_that_leads_nowhere_and_an_image_that_no_row_leads_to(artifact: Artifact) -> None:
    row = SampleIndex.open(artifact).row(0)
    findings = with_rows(artifact, first(offset=row.offset + 512))
    assert [(finding.key, finding.byte) for finding in findings.of("index-offset")] == [(row.key, row.offset + 512)]
    assert [(finding.key, finding.byte) for finding in findings.of("index-lacks")] == [(row.key, row.offset - 512)]
    assert errors(findings) == {"index-offset", "index-lacks"}


def test_two_rows_with_one_key_and_a_shard_that_is_not_there(artifact: Artifact) -> None:
    def twice(rows: list[SampleRow]) -> list[SampleRow]:
        return [*rows[:-1], replace(rows[-1], key=rows[0].key)]

    assert with_rows(artifact, twice).counts["index-key-repeated"] == 1
    assert with_rows(artifact, first(shard=44)).counts["index-range"] == 1


def test_a_missing_shard_is_reported_and_the_others_are_checked(artifact: Artifact) -> None:
    os.unlink(artifact.path("shards/val-00000.tar"))
    for deep in (True, False):
        findings = found(artifact, deep=deep)
        assert [(finding.shard, finding.message) for finding in findings.of("shard-missing")] == [
            ("shards/val-00000.tar", "missing")
        ]
        assert errors(findings) == {"shard-missing"}


def test_a_flipped_bit_is_reported_with_file_key_and_byte(artifact: Artifact) -> None:
    row = SampleIndex.open(artifact).row(3)
    path = artifact.path("shards/train-00000.tar")
    data = bytearray(path.read_bytes())
    data[row.offset + row.length // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    findings = found(artifact)
    assert [finding.shard for finding in findings.of("file-damaged")] == ["shards/train-00000.tar"]
    assert [(finding.key, finding.byte) for finding in findings.of("index-hash")] == [(row.key, row.offset)]
    # Headers and sizes are as they were.
    assert errors(found(artifact, deep=False)) == set()


def test_a_file_that_is_longer_or_gone_is_reported_without_reading_it(artifact: Artifact) -> None:
    card = artifact.path("data_card.md")
    card.chmod(0o644)
    card.write_text("short")
    artifact.path("labels.json").unlink()
    findings = found(artifact, deep=False)
    assert {finding.shard for finding in findings.of("file-damaged")} == {"data_card.md", "labels.json"}


def test_an_index_that_cannot_be_opened_leaves_the_tars_to_check(artifact: Artifact) -> None:
    path = artifact.path("index.arrow")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"cat", b"cow"))
    findings = Findings(5)
    totals = lint([artifact_target(artifact, findings)], findings)
    assert errors(findings) == {"index-damaged", "file-damaged"}
    assert totals.samples == 24


def test_an_index_that_names_a_shard_which_the_manifest_lacks(artifact: Artifact) -> None:
    index = SampleIndex.open(artifact)
    names = (*index.shard_names[:-1], "shards/other-00000.tar")
    changed = index_of([index.row(id) for id in range(len(index))], shard_names=names, label_names=index.label_names)
    path = artifact.path("index.arrow")
    path.chmod(0o644)
    changed.write(path.parent)
    entry = {"size": path.stat().st_size, "sha256": file_sha256(path)}
    files = artifact.manifest["files"] | {"index.arrow": entry}
    artifact = replace(artifact, manifest={**artifact.manifest, "files": files})
    assert [finding.shard for finding in found(artifact).of("shard-missing")] == ["shards/other-00000.tar"]


def test_only_an_artifact_with_shards_is_taken(artifact: Artifact) -> None:
    other = replace(artifact, manifest={**artifact.manifest, "files": {}})
    with pytest.raises(InputError, match="holds no shards"):
        artifact_target(other, Findings(5))


def foreign(folder: Path, picture: Picture) -> Path:
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for place in range(6):
                # A repeated key, a key that must be changed, an image that is there twice, one that is none.
                key = ("same key", f"{number}{place}")[place > 0]
                data = b"no image" if place == 5 else picture(0 if place < 2 else 10 * number + place)
                made = tarfile.TarInfo(f"{key}.png")
                made.size = len(data)
                tar.addfile(made, io.BytesIO(data))
    return folder


def test_tars_indexed_in_place_may_hold_more_than_the_index(tmp_path: Path, shard: Shard, picture: Picture) -> None:
    folder = foreign(tmp_path / "tars", picture)
    artifact = shard(
        source={"kind": "webdataset", "tars": str(folder), "in_place": True},
        split={"val_share": 0, "test_share": 0},
        max_unreadable_share=0.5,
    )
    assert len(SampleIndex.open(artifact)) < 10
    assert errors(found(artifact)) == {"image-broken"}
    os.utime(folder / "1.tar", (1, 1))
    (folder / "0.tar").unlink()
    findings = found(artifact)
    assert [finding.shard for finding in findings.of("tar-changed")] == [str(folder / "1.tar")]
    assert [finding.shard for finding in findings.of("shard-missing")] == [str(folder / "0.tar")]


def test_findings_of_several_artifacts_name_theirs(artifact: Artifact) -> None:
    os.unlink(artifact.path("shards/val-00000.tar"))
    findings = Findings(5)
    targets = [artifact_target(artifact, findings)] * 2
    lint(targets, findings)
    assert {finding.shard for finding in findings.of("shard-missing")} == {f"{artifact.name}/shards/val-00000.tar"}


@pytest.mark.servers
def test_tars_and_artifacts_in_s3_are_checked_as_those_here(
    tmp_path: Path, artifact: Artifact, shard: Shard, picture: Picture, s3_url: str
) -> None:
    folder = foreign(tmp_path / "tars", picture)
    storage = open_storage(s3_url)
    for path in sorted(folder.iterdir()):
        storage.write(f"tars/{path.name}", path.read_bytes())
    reported = []
    for place in (str(folder), f"{s3_url}/tars"):
        findings = Findings(50)
        lint([tars_target([place])], findings)
        reported.append([finding.as_json() for _, _, shown in findings.by_code() for finding in shown])
    assert reported[0] == reported[1] != []
    source = {"kind": "image_folder", "folder": str(tmp_path / "pets")}
    remote = shard(into=ArtifactStore.open(s3_url), source=source)
    assert errors(found(remote)) == set()
    storage.delete(remote.object_path("shards/val-00000.tar"))
    assert errors(found(remote)) == {"shard-missing"}
