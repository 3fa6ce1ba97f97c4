"""The retained tree, and the pairs below each of its nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import ArtifactStore
from pipeline.contrastive.build_ontology import BuildOntology, build
from pipeline.contrastive.ontology import Ontology, build_nodes, sort_depth_first
from pipeline.contrastive.ontology_config import OntologyConfig
from pipeline.errors import InputError
from pipeline.sharding.format.index import SampleRow, TaxonomyNode
from pipeline.stage import run_stage
from tests.small_shards import index_of

ENTRIES = [
    ("all", -1),
    ("animals", 0),
    ("cats", 1),
    ("dogs", 1),
    ("rare", 1),
    ("things", 0),
    ("box", 5),
    ("odd", 5),
    ("empty", 0),
]


def hand_made(sizes: dict[str, int], needed: int, copies: int = 2) -> Ontology:
    """An ontology of taxonomy nodes with `sizes` own contents, each in `copies` pairs."""
    names = [name for name, _ in ENTRIES]
    node_of = np.concatenate([np.full(count * copies, names.index(name)) for name, count in sizes.items()])
    ids = np.arange(len(node_of), dtype=np.int64)
    return build(ENTRIES, node_of, ids // copies, ids // copies, ids, ids[:0], needed=needed)


def test_concepts_are_retained_by_contents_and_parents_by_two_children() -> None:
    ontology = hand_made({"cats": 10, "dogs": 9, "rare": 2, "box": 8, "odd": 1}, needed=8)
    # "rare" and "odd" are too small; "things" would join one concept only, so "box" replaces it.
    assert [node.path for node in ontology.nodes] == ["all", "animals", "box", "animals/cats", "animals/dogs"]
    assert [node.parent for node in ontology.nodes] == [-1, 0, 0, 1, 1]
    counts = {node.name: len(ontology.below(number)) for number, node in enumerate(ontology.nodes)}
    assert counts == {"all": 60, "animals": 42, "box": 16, "cats": 20, "dogs": 18}


def test_a_parent_of_many_small_concepts_is_retained_as_a_concept() -> None:
    ontology = hand_made({"cats": 3, "dogs": 3, "rare": 3, "box": 9}, needed=8)
    assert [node.path for node in ontology.nodes] == ["all", "animals", "box"]


def test_pairs_of_copies_do_not_make_a_concept_large() -> None:
    assert len(hand_made({"cats": 4, "dogs": 3}, needed=8, copies=50)) == 1


def test_every_pair_is_below_the_root_once_and_slices_are_nested() -> None:
    ontology = hand_made({"cats": 10, "dogs": 9, "rare": 2, "box": 8, "odd": 1}, needed=8)
    assert sorted(ontology.below(0)) == list(range(60))
    for number, node in enumerate(ontology.nodes):
        for child in node.children:
            assert set(ontology.below(child)) < set(ontology.below(number))
        assert sorted(ontology.descendants(number)) == [
            other for other in range(len(ontology)) if number in ontology.ancestors(other)
        ]


def test_depth_first_puts_own_pairs_before_those_of_children() -> None:
    nodes = build_nodes([("r", -1), ("a", 0), ("b", 0), ("a1", 1)])
    ordered, spans = sort_depth_first(nodes, np.array([2, 3, 1, 0, 3]), np.array([10, 11, 12, 13, 14]))
    assert ordered.tolist() == [13, 12, 11, 14, 10]
    assert spans.tolist() == [[0, 1, 5], [1, 2, 4], [4, 5, 5], [2, 4, 4]]


def sample(
    number: int, *, node: int, split: int = 0, caption: str | None = None, group: int | None = None
) -> SampleRow:
    return SampleRow(
        key=f"k{number}",
        shard=0,
        offset=0,
        length=1,
        label=0,
        captions=() if caption == "" else (caption or f"thing {number}",),
        width=8,
        height=8,
        content_hash=f"{number // 2:032x}",
        split=split,
        group=number if group is None else group,
        node=node,
        family="x",
    )


def shards(store: ArtifactStore, rows: list[SampleRow], taxonomy: list[TaxonomyNode], folder: Path) -> object:
    folder.mkdir(parents=True)
    index_of(rows, shard_names=["s"], label_names=["a"], taxonomy=taxonomy).write(folder)
    return store.commit("shard-dataset", "k0", folder, config={}, inputs={}, summary={}, seconds=0, origin={})


TAXONOMY = [TaxonomyNode("all", -1), TaxonomyNode("a", 0), TaxonomyNode("b", 0)]


def test_stage_holds_out_the_validation_split_and_a_fraction_with_its_duplicates(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path / "store"))
    rows = [sample(n, node=1 + n % 2, split=int(n >= 200)) for n in range(240)]
    rows.append(sample(240, node=1, caption=""))
    data = shards(store, rows, TAXONOMY, tmp_path / "s")
    config = OntologyConfig(min_count=10, held_out_share=0.2)
    artifact = run_stage(BuildOntology(), config, {"shards": data}, store=store)  # type: ignore[dict-item]
    ontology = Ontology.open(artifact)
    assert [node.name for node in ontology.nodes] == ["all", "a", "b"]
    held, trained = set(ontology.held_out.tolist()), set(ontology.postings.tolist())
    assert held >= set(range(200, 240))
    assert held | trained == set(range(240))
    assert not held & trained
    assert 15 <= len(held) - 40 <= 70
    assert all((n ^ 1) in held for n in held if n < 200), "images with equal bytes are held out together"
    assert artifact.summary["training_pairs"] == len(trained)
    assert isinstance(ontology.postings, np.memmap)
    again = Ontology.open(artifact)
    assert again.fingerprint == ontology.fingerprint


@pytest.mark.parametrize(
    ("rows", "taxonomy", "words"),
    [
        ([sample(n, node=0, caption="") for n in range(9)], TAXONOMY, "no training sample has a caption"),
        ([sample(n, node=-1) for n in range(9)], [], "no taxonomy"),
        ([sample(n, node=1) for n in range(9)], [TaxonomyNode("a", -1), TaxonomyNode("b", -1)], "root comes first"),
    ],
)
def test_data_that_cannot_have_an_ontology_is_refused(
    tmp_path: Path, rows: list[SampleRow], taxonomy: list[TaxonomyNode], words: str
) -> None:
    store = ArtifactStore.open(str(tmp_path / "store"))
    data = shards(store, rows, taxonomy, tmp_path / "s")
    with pytest.raises(InputError, match=words):
        run_stage(BuildOntology(), OntologyConfig(), {"shards": data}, store=store)  # type: ignore[dict-item]
