"""A dual encoder on a GPU: it learns under its curriculum, and its features are those of the CPU."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.contrastive.build_ontology import BuildOntology, OntologyConfig
from pipeline.contrastive.recipe import ContrastiveConfig, ContrastiveRecipe
from pipeline.contrastive.stage import PretrainClip
from pipeline.exported_model import ExportedModel
from pipeline.stage import run_stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU: torch.cuda.is_available() is false"),
]

GPU = torch.device("cuda", 0)
CONFIG: dict[str, Any] = {
    "new_tower": {"model": {"name": "vit_micro", "kwargs": {"width": 48, "depth": 2, "heads": 2}}, "image_size": 32},
    "text": {"width": 32, "depth": 1, "heads": 2, "context_length": 10},
    "embed_dim": 32,
    "policy": {
        "kind": "tonics",
        "nodes_per_batch": 4,
        "refresh_every_steps": 25,
        "threshold": 0.35,
        "patience": 1,
        "held_out_batch": 8,
        "held_out_batches": 4,
    },
    "training": {"steps": 100, "global_batch": 16, "optimizer": {"kind": "adamw", "lr": 3e-3}},
    "loader": {"augment": None},
    "runner": {"runner": "process", "tracking": False},
}


def inputs_of(store: ArtifactStore) -> dict[str, Artifact]:
    shards = store.resolve("shard-dataset/drawings")
    ontology = OntologyConfig(min_count=4, pairs_per_node=4)
    return {"shards": shards, "ontology": run_stage(BuildOntology(), ontology, {"shards": shards}, store=store)}


@pytest.fixture(scope="module")
def trained(drawings_store: ArtifactStore) -> Artifact:
    config = parse_config(ContrastiveConfig, CONFIG, "test")
    return run_stage(PretrainClip(), config, inputs_of(drawings_store), store=drawings_store)


def test_loss_falls_and_the_curriculum_moves(trained: Artifact) -> None:
    assert json.loads(trained.read("training.json"))["device"] == torch.cuda.get_device_name(GPU)
    losses = [
        row["train/loss"]
        for row in map(json.loads, trained.read("metrics.jsonl").decode().splitlines())
        if "train/loss" in row
    ]
    assert losses[-1] < 0.75 * losses[0]
    assert trained.summary["val_text_recall_at_1"] > 5 / 32
    lines = [json.loads(line) for line in trained.read("curriculum.jsonl").decode().splitlines()]
    assert [line["version"] for line in lines] == [1, 2, 3]


def test_the_encoder_says_on_a_gpu_what_it_says_on_a_cpu(trained: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    exported = ExportedModel.open(trained)
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tokens = exported.tokenizer().encode(["a red square", "an emoji of a blue ring", "a"])
    found = []
    for device in (torch.device("cpu"), GPU):
        model: Any = exported.build().to(device)
        with torch.no_grad():
            seen = model.encode_image(exported.preprocessing.normalise(images.to(device)))
            found.append((seen.cpu(), model.encode_text(tokens.to(device)).cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_a_step_does_not_wait_for_the_gpu(drawings_store: ArtifactStore) -> None:
    config = parse_config(ContrastiveConfig, {**CONFIG, "policy": {"kind": "shuffled"}}, "test")
    uri = drawings_store.resolve("shard-dataset/drawings").uri
    parts = ContrastiveRecipe(config, drawings_store.storage.url, (("shards", uri),)).build(GPU, 0, 1)
    for batch in parts.loader.batches(0, 3):
        if batch.step:  # the first allocates
            torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.autocast("cuda", torch.bfloat16):
                loss = parts.task.training_step(parts.model, batch).loss
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
