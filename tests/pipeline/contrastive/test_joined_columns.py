"""pretrain-clip on joined columns: other captions, and only the samples of a range, under any policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.contrastive.build_ontology import BuildOntology
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.inputs import Inputs
from pipeline.contrastive.ontology_config import OntologyConfig
from pipeline.contrastive.stage import PretrainClip
from pipeline.contrastive.task import ContrastiveTask
from pipeline.errors import InputError
from pipeline.loading.batch import Batch
from pipeline.loading.tokenizer import Tokenizer
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.sharding.joining.stage import JoinColumns
from pipeline.stage import run_stage
from pipeline.training.task import StepOutput

LENGTH = 10
CONFIG: dict[str, Any] = {
    "new_tower": {"model": {"name": "vit_micro", "kwargs": {"width": 32, "depth": 1, "heads": 2}}, "image_size": 32},
    "text": {"width": 32, "depth": 1, "heads": 2, "context_length": LENGTH},
    "embed_dim": 16,
    "policy": {"kind": "shuffled"},
    "training": {"steps": 10, "global_batch": 16, "evaluate_every_epochs": 0},
    "loader": {"augment": None},
    "runner": {"runner": "process", "tracking": False},
    "captions_from": "new",
}
TONICS = {"kind": "tonics", "nodes_per_batch": 4, "held_out_batch": 8, "held_out_batches": 1}


def caption(key: str) -> str:
    return f"drawn {key.replace('-', ' ')}"


@pytest.fixture(scope="module")
def shards(drawings_store: ArtifactStore) -> Artifact:
    return drawings_store.resolve("shard-dataset/drawings")


@pytest.fixture(scope="module")
def columns(drawings_store: ArtifactStore, shards: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A caption that names the key; copy = the last part of the key. Black drawings have no caption."""
    index = SampleIndex.open(shards)
    path: Path = tmp_path_factory.mktemp("columns") / "new.csv"
    keys = [index.key(row) for row in range(len(index))]
    lines = [f"{key},{'' if 'black' in key else caption(key)},{key[-1]}" for key in keys]
    path.write_text("\n".join(["key,new,copy", *lines]))
    config = JoinColumnsConfig(source=str(path), max_missing_share=0.2).resolved()
    return run_stage(JoinColumns(), config, {"shards": shards}, store=drawings_store)


def changed(**changes: Any) -> ContrastiveConfig:
    return parse_config(ContrastiveConfig, {**CONFIG, **changes}, "test")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[int]]:
    """id -> tokens of every sample that is trained on."""
    tokens: dict[int, list[int]] = {}
    whole = ContrastiveTask.training_step

    def noted(self: ContrastiveTask, model: torch.nn.Module, batch: Batch) -> StepOutput:
        assert batch.tokens is not None
        tokens.update(zip(batch.ids.tolist(), batch.tokens.tolist(), strict=True))
        return whole(self, model, batch)

    monkeypatch.setattr(ContrastiveTask, "training_step", noted)
    return tokens


def assert_new_captions(seen: dict[int, list[int]], shards: Artifact) -> None:
    index, tokenizer = SampleIndex.open(shards), Tokenizer(LENGTH)
    assert len(seen) > 40
    for id, tokens in seen.items():
        assert "black" not in index.key(id)
        assert tokens == tokenizer.encode([caption(index.key(id))])[0].tolist()


def test_new_captions_are_trained_on_and_samples_without_one_are_not(
    drawings_store: ArtifactStore, shards: Artifact, columns: Artifact, seen: dict[int, list[int]]
) -> None:
    config = changed(keep={"copy": [1, 3]})
    run_stage(PretrainClip(), config, {"shards": shards, "columns": columns}, store=drawings_store)
    assert_new_captions(seen, shards)
    assert {SampleIndex.open(shards).key(id)[-1] for id in seen} == {"1", "2", "3"}


def test_the_curriculum_is_built_of_the_captions_and_samples_that_are_trained_on(
    drawings_store: ArtifactStore, shards: Artifact, columns: Artifact, seen: dict[int, list[int]]
) -> None:
    choice: dict[str, Any] = {"captions_from": "new", "keep": {"copy": [2, None]}}
    small = parse_config(OntologyConfig, {"min_count": 4, "pairs_per_node": 3, **choice}, "test")
    ontology = run_stage(BuildOntology(), small, {"shards": shards, "columns": columns}, store=drawings_store)
    inputs = {"shards": shards, "columns": columns, "ontology": ontology}
    run_stage(PretrainClip(), changed(policy=TONICS, **choice), inputs, store=drawings_store)
    assert_new_captions(seen, shards)
    assert {SampleIndex.open(shards).key(id)[-1] for id in seen} == {"2", "3", "4", "5"}

    for other in ({"captions_from": None}, {"keep": {}}, {"keep": {"copy": [2, 4]}}):
        with pytest.raises(InputError, match=r"build one with\s.*and the same columns"):
            run_stage(PretrainClip(), changed(policy=TONICS, **{**choice, **other}), inputs, store=drawings_store)


def test_validation_pairs_have_the_new_captions(shards: Artifact, columns: Artifact) -> None:
    opened = Inputs.open({"shards": shards, "columns": columns}, captions_from="new", keep={"copy": (1, 1)})
    pairs = opened.validation_pairs(1000, 0)
    assert [opened.index.captions(id) for id in pairs] == [[caption(opened.index.key(id))] for id in pairs]
    assert len(pairs) == 28  # 32 drawings; 4 of them are black
    np.testing.assert_array_equal(opened.index.labels[opened.training_pairs()], np.repeat(range(4), 7))


def test_captions_that_are_not_there_are_refused(
    drawings_store: ArtifactStore, shards: Artifact, columns: Artifact
) -> None:
    for inputs, changes, words in (
        ({"shards": shards}, {}, "captions_from: new: no columns were joined"),
        ({"shards": shards, "columns": columns}, {"captions_from": "nwe"}, "did you mean new"),
        ({"shards": shards, "columns": columns}, {"captions_from": "copy"}, "'copy' is int64; a column of text"),
        ({"shards": shards, "columns": columns}, {"keep": {"copy": [7, 9]}}, "no training sample has a caption and is"),
    ):
        with pytest.raises(InputError, match=words):
            run_stage(PretrainClip(), changed(**changes), inputs, store=drawings_store)
