"""Several data sets as one: rows keep bytes, split and captions; labels merge; nothing held out is trained on."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import DamagedError, InputError
from pipeline.loading.reader import SampleReader
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.format.index import SampleIndex, SampleRow, TaxonomyNode, content_hash
from pipeline.sharding.inspection.lint.findings import Findings
from pipeline.sharding.inspection.lint.lint import lint
from pipeline.sharding.inspection.lint.target import artifact_target
from pipeline.sharding.mixture.stage import MixDatasets, MixDatasetsConfig
from pipeline.sharding.sources.webdataset_tars import WebdatasetConfig
from pipeline.sharding.stage import ShardDataset
from pipeline.stage import run_stage
from tests.small_shards import SmallShards, index_of


def png(colour: int, side: int = 12) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (colour, 255 - colour, colour // 2)).save(buffer, "PNG")
    return buffer.getvalue()


def make(
    store: ArtifactStore,
    key: str,
    colours: Sequence[int],
    labels: Sequence[str],
    sources: Sequence[str] = ("here",),
    taxonomy: Sequence[TaxonomyNode] = (),
) -> Artifact:
    """A shards artifact of plain colours: every fifth is for validation, labels and sources in turn."""
    folder = store.local / f"new-{key}"
    rows = []
    with SmallShards(folder, samples_per_shard=7) as tar:
        for number, colour in sorted(enumerate(colours), key=lambda one: (one[0] % 5 == 4, one[0])):
            split = int(number % 5 == 4)
            place = tar.add(("train", "val")[split], f"s{number}", [("png", png(colour))])
            rows.append(
                SampleRow(
                    f"s{number}", place.shard, place.offset, place.length, number % len(labels),
                    (f"colour {colour}",), 12, 12, content_hash(png(colour)), split, number // 2,
                    number % len(taxonomy) if taxonomy else -1, sources[number % len(sources)],
                )
            )  # fmt: skip
    index = index_of(rows, shard_names=tar.shard_names, label_names=labels, taxonomy=taxonomy)
    index.write(folder)
    card = {"title": key, "credits": [{"work": key, "author": "us", "licence": "CC0", "url": ""}]}
    (folder / "data_card.json").write_text(json.dumps(card))
    return store.commit("shard-dataset", key, folder, config={}, inputs={}, summary={}, seconds=0, origin={})


def pair(store: ArtifactStore) -> dict[str, Artifact]:
    """Two data sets. Image 60 is for training in the first and for validation in the second."""
    tree = (TaxonomyNode("warmth", -1), TaxonomyNode("warm", 0))
    return {
        "photos": make(store, "0b", [*range(50, 65), 7], ["red", "blue"], ["a", "b"], tree),
        "emoji": make(store, "0a", [*range(100, 104), 60, *range(104, 120)], ["green", "red"]),
    }


def mix(store: ArtifactStore, parts: dict[str, Artifact]) -> Artifact:
    return run_stage(MixDatasets(), MixDatasetsConfig(), parts, store=store)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path / "store"))


def origin(parts: dict[str, Artifact], index: SampleIndex, id: int) -> tuple[str, SampleRow, list[str]]:
    """The data set of a row of a mixture, its row there, and that data set's labels."""
    name, _, key = index.key(id).partition("/")
    own = SampleIndex.open(parts[name])
    return name, own.row(own.keys.to_pylist().index(key)), list(own.label_names)


def test_rows_keep_what_they_were(store: ArtifactStore) -> None:
    parts = pair(store)
    index = SampleIndex.open(mix(store, parts))
    assert index.label_names == ("green", "red", "blue")
    assert [(one.name, one.start, one.stop) for one in index.data_sets] == [("emoji", 0, 21), ("photos", 21, 36)]
    groups: dict[int, tuple[str, int]] = {}
    for id in range(len(index)):
        name, row, labels = origin(parts, index, id)
        assert next(one.name for one in index.data_sets if one.start <= id < one.stop) == name
        assert index.label_names[index.labels[id]] == labels[row.label]
        assert tuple(index.captions(id)) == row.captions
        assert (index.splits[id], index.content_hash(id)) == (row.split, row.content_hash)
        assert index.family(id) == (f"photos/{row.family}" if name == "photos" else "emoji")
        assert groups.setdefault(int(index.groups[id]), (name, row.group)) == (name, row.group)
    assert len(set(index.keys.to_pylist())) == len(index)


def test_an_image_that_is_held_out_in_one_is_trained_on_in_none(store: ArtifactStore) -> None:
    artifact = mix(store, pair(store))
    index = SampleIndex.open(artifact)
    (place,) = [id for id in range(len(index)) if index.content_hash(id) == content_hash(png(60))]
    assert index.key(place) == "emoji/s4"
    assert index.splits[place] == 1
    assert artifact.summary["left_out"] == 1
    card = json.loads(artifact.read("data_card.json"))
    assert [one["training_images_held_out_elsewhere"] for one in card["data_sets"]] == [0, 1]
    assert (card["title"], card["samples"], len(card["credits"])) == ("emoji + photos", 36, 2)


def test_the_bytes_are_read_from_the_tars_of_the_inputs(store: ArtifactStore) -> None:
    parts = pair(store)
    artifact = mix(store, parts)
    index = SampleIndex.open(artifact)
    assert not [name for name in artifact.files if name.endswith(".tar")]
    reader = SampleReader(artifact, index, verify="always")
    for id in range(len(index)):
        assert content_hash(reader.read(id)) == index.content_hash(id)
    assert index.shard_names[0] == "shard-dataset/0a/shards/train-00000.tar"


def test_damage_is_named_with_the_artifact_that_has_it(store: ArtifactStore) -> None:
    parts = pair(store)
    artifact = mix(store, parts)
    index = SampleIndex.open(artifact)
    with parts["photos"].path("shards/train-00000.tar").open("r+b") as file:
        file.seek(int(index.offsets[21]) + 20)
        file.write(b"damaged")
    place = f"shard-dataset/0b/shards/train-00000.tar, sample photos/s0 at byte {index.offsets[21]}"
    with pytest.raises(DamagedError, match=f"{place}: .*`tutelage artifacts verify shard-dataset/0b`"):
        SampleReader(artifact, index).read(21)


def test_a_store_that_moves_takes_its_mixtures_along(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = mix(store, pair(store))
    shutil.copytree(tmp_path / "store", tmp_path / "moved")
    shutil.rmtree(tmp_path / "store")
    moved = ArtifactStore.open(str(tmp_path / "moved")).resolve(artifact.name)
    reader = SampleReader.open(moved)
    assert content_hash(reader.read(30)) == SampleIndex.open(moved).content_hash(30)


def found_by_lint(artifact: Artifact) -> set[str]:
    """What `data lint` finds, as "shard: sentence"."""
    findings = Findings(100)
    lint([artifact_target(artifact, findings)], findings)
    return {f"{one.shard}: {one.message}" for _, _, shown in findings.by_code() for one in shown}


def test_lint_reads_the_tars_of_the_inputs(store: ArtifactStore) -> None:
    parts = pair(store)
    artifact = mix(store, parts)
    # These tars have no .json beside their images; nothing else is odd.
    assert not {line for line in found_by_lint(artifact) if "json" not in line}
    parts["emoji"].path("shards/train-00001.tar").unlink()
    gone = "shard-dataset/0a/shards/train-00001.tar: missing"
    assert gone in found_by_lint(artifact)


def test_taxonomies_are_grafted_on_one_root(store: ArtifactStore) -> None:
    parts = pair(store)
    index = SampleIndex.open(mix(store, parts))
    assert [(node.name, node.parent) for node in index.taxonomy] == [("all", -1), ("photos", 0), ("warm", 1)]
    for id in range(len(index)):
        name, row, _ = origin(parts, index, id)
        assert index.nodes[id] == (-1 if name == "emoji" else 1 + row.node)


def test_both_files_of_the_index_name_the_data_sets(store: ArtifactStore) -> None:
    artifact = mix(store, pair(store))
    arrow, parquet = (SampleIndex.read(artifact.path(f"index.{kind}")) for kind in ("arrow", "parquet"))
    assert arrow.data_sets == parquet.data_sets
    assert arrow.fingerprint == parquet.fingerprint == SampleIndex.open(artifact).fingerprint
    assert SampleIndex.open(pair(ArtifactStore.open(f"{store.local}2"))["emoji"]).data_sets == ()


def test_the_order_of_the_inputs_changes_nothing(store: ArtifactStore) -> None:
    parts = pair(store)
    first = mix(store, parts)
    assert mix(store, dict(reversed(parts.items()))).name == first.name


def test_tars_that_are_indexed_in_place_and_mixtures_can_be_mixed(store: ArtifactStore, tmp_path: Path) -> None:
    parts = pair(store)
    tars = tmp_path / "foreign"
    tars.mkdir()
    for shard in parts["emoji"].files:
        if shard.endswith(".tar"):
            shutil.copy(parts["emoji"].path(shard), tars / Path(shard).name)
    source = WebdatasetConfig(tars=str(tars / "*.tar"), in_place=True)
    config = ShardingConfig.model_validate({"source": source.model_dump()}).resolved()
    foreign = run_stage(ShardDataset(), config, {}, store=store)
    artifact = mix(store, {"foreign": foreign, "both": mix(store, parts)})
    index = SampleIndex.open(artifact)
    reader = SampleReader(artifact, index, verify="always")
    assert {name.rpartition("/")[0] for name in index.shard_names} >= {str(tars), "shard-dataset/0a/shards"}
    for id in range(len(index)):
        assert content_hash(reader.read(id)) == index.content_hash(id)


def test_a_delta_brings_the_shards_of_its_base_along(
    store: ArtifactStore, tmp_path: Path, picture: Callable[..., bytes], add: Callable[..., Artifact]
) -> None:
    for number in range(40):
        folder = tmp_path / "pets" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(picture(number))
        if number == 29:
            base = add(store, tmp_path / "pets")
    delta = add(store, tmp_path / "pets", base)
    artifact = mix(store, {"pets": delta, "emoji": pair(store)["emoji"]})
    index = SampleIndex.open(artifact)
    owners = {name.partition("/shards/")[0] for name in index.shard_names}
    assert owners == {base.name, delta.name, "shard-dataset/0a"}
    reader = SampleReader(artifact, index, verify="always")
    for id in range(len(index)):
        assert content_hash(reader.read(id)) == index.content_hash(id)


@pytest.mark.parametrize(
    ("names", "words"),
    [(["emoji"], "at least two data sets, and names 1"), (["emoji", "My/Set"], "'My/Set' cannot name")],
)
def test_what_is_no_mixture_is_refused(store: ArtifactStore, names: list[str], words: str) -> None:
    shards = pair(store)["emoji"]
    with pytest.raises(InputError, match=words):
        mix(store, dict.fromkeys(names, shards))


@pytest.mark.servers
def test_a_mixture_in_s3_is_read_from_its_inputs(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    artifact = mix(ArtifactStore.open(s3_url), pair(ArtifactStore.open(s3_url)))
    index = SampleIndex.open(artifact)
    modes: list[Any] = ["parts", "ranges"]
    for remote in modes:
        reader = SampleReader(artifact, index, remote=remote)
        reader.prefetch(np.arange(len(index)))
        for id in range(len(index)):
            assert content_hash(reader.read(id)) == index.content_hash(id)
        reader.close()
