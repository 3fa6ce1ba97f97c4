"""The stage pretrain-clip, on drawings, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_defs.clip import CLIP
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.contrastive.build_ontology import BuildOntology
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.dual_encoder import build_model
from pipeline.contrastive.inputs import Inputs
from pipeline.contrastive.ontology import Ontology
from pipeline.contrastive.ontology_config import OntologyConfig
from pipeline.contrastive.recipe import ContrastiveRecipe
from pipeline.contrastive.stage import PretrainClip
from pipeline.contrastive.task import ContrastiveTask
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.loading.batch import Batch
from pipeline.preprocessing import Preprocessing
from pipeline.stage import run_stage
from pipeline.training.task import StepOutput

NEW_BACKBONE: dict[str, Any] = {
    "model": {"name": "vit_micro", "kwargs": {"width": 48, "depth": 2, "heads": 2}},
    "image_size": 32,
}
QUICK: dict[str, Any] = {
    "new_tower": NEW_BACKBONE,
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
    "training": {
        "steps": 100,
        "global_batch": 16,
        "optimizer": {"kind": "adamw", "lr": 3e-3},
        "checkpoint_every_steps": 30,
        "evaluate_every_epochs": 0,
    },
    "loader": {"augment": None},
    "runner": {"runner": "process", "tracking": False},
}


def changed(**changes: Any) -> ContrastiveConfig:
    return parse_config(ContrastiveConfig, {**QUICK, **changes}, "test")


def ontology_of(store: ArtifactStore) -> Artifact:
    shards = store.resolve("shard-dataset/drawings")
    config = OntologyConfig(min_count=4, pairs_per_node=4)
    return run_stage(BuildOntology(), config, {"shards": shards}, store=store)


def inputs_of(store: ArtifactStore) -> dict[str, Artifact]:
    return {"shards": store.resolve("shard-dataset/drawings"), "ontology": ontology_of(store)}


def lines_of(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.read(name).decode().splitlines()]


@pytest.fixture(scope="module")
def trained(drawings_store: ArtifactStore) -> Artifact:
    return run_stage(PretrainClip(), changed(), inputs_of(drawings_store), store=drawings_store)


def test_loss_falls_and_retrieval_beats_chance(trained: Artifact) -> None:
    losses = [row["train/loss"] for row in lines_of(trained, "metrics.jsonl") if "train/loss" in row]
    assert losses[0] > 2.3
    assert losses[-1] < 0.6 * losses[0]
    assert trained.summary["val_text_recall_at_1"] > 5 / 32


def test_curriculum_opens_nodes_when_accuracy_passes_the_threshold(trained: Artifact) -> None:
    lines = lines_of(trained, "curriculum.jsonl")
    assert [line["step"] for line in lines] == [25, 50, 75]
    assert [line["version"] for line in lines] == [1, 2, 3]
    assert lines[-1]["frontier"] == ["shape", "square", "disc", "cross", "ring"]
    for before, line in zip([None, *lines], lines, strict=False):
        assert sum(line["P"].values()) == pytest.approx(1.0)
        assert line["chance"] == 1 / 8
        assert list(line["accuracy"]) == (before["frontier"] if before else ["shape"])
        assert sum(line["hits"].values()) == 25 * 16
        assert line["relaxed"] == 0.0
    opened = next(line for line in lines if len(line["frontier"]) == 5)
    assert opened["accuracy"]["shape"] >= 0.35


def test_artifact_holds_an_exported_dual_encoder(trained: Artifact) -> None:
    exported = ExportedModel.open(trained)
    assert (exported.kind, exported.context_length, exported.templates) == (
        "dual-encoder",
        10,
        ("{}", "an emoji of {}"),
    )
    model = exported.build()
    assert isinstance(model, CLIP)
    assert json.loads(trained.read("training.json"))["steps"] == 100


def test_killed_run_ends_in_the_same_bits_and_the_same_curriculum(
    trained: Artifact, drawings_store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore.open(str(tmp_path / "store"))
    shards = drawings_store.resolve("shard-dataset/drawings")
    copy = tmp_path / "copy"
    for name in shards.files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(shards.read(name))
    store.commit("shard-dataset", "drawings", copy, config={}, inputs={}, summary={}, seconds=0, origin={})
    whole = ContrastiveTask.training_step

    def cut(self: ContrastiveTask, model: torch.nn.Module, batch: Batch) -> StepOutput:
        if batch.step == 67:
            raise ConnectionError("power failure")
        return whole(self, model, batch)

    with monkeypatch.context() as patched:
        patched.setattr(ContrastiveTask, "training_step", cut)
        with pytest.raises(ConnectionError):
            run_stage(PretrainClip(), changed(), inputs_of(store), store=store)
    steps = []

    def recorded(self: ContrastiveTask, model: torch.nn.Module, batch: Batch) -> StepOutput:
        steps.append(batch.step)
        return whole(self, model, batch)

    monkeypatch.setattr(ContrastiveTask, "training_step", recorded)
    again = run_stage(PretrainClip(), changed(), inputs_of(store), store=store)
    assert steps == list(range(60, 100))
    assert again.read("curriculum.jsonl") == trained.read("curriculum.jsonl")
    assert again.read("model/model.safetensors") == trained.read("model/model.safetensors")


def test_image_backbone_starts_from_the_student_and_can_be_frozen(
    drawings_store: ArtifactStore, tmp_path: Path
) -> None:
    from model_defs import create_model

    torch.manual_seed(5)
    kwargs = {"width": 48, "depth": 2, "heads": 2, "img_size": 32, "num_classes": 4, "in_chans": 3}
    student = create_model("deit_micro_distilled", **kwargs)
    preprocessing = Preprocessing(32, 3, (0.4,) * 3, (0.3,) * 3)
    ExportedModel.write(
        tmp_path / "s" / "model",
        student,
        kind="classifier",
        architecture="deit_micro_distilled",
        kwargs=kwargs,
        preprocessing=preprocessing,
        labels=("a", "b", "c", "d"),
    )
    classifier = drawings_store.commit(
        "distill-student", "frozen", tmp_path / "s", config={}, inputs={}, summary={}, seconds=0, origin={}
    )
    inputs = {**inputs_of(drawings_store), "tower": classifier}
    model = build_model(changed(), Inputs.open(inputs))
    for name, value in model.image.state_dict().items():
        assert torch.equal(value, student.state_dict()[name])
    config = changed(freeze_tower=True, training={**QUICK["training"], "steps": 3})
    exported = ExportedModel.open(run_stage(PretrainClip(), config, inputs, store=drawings_store))
    assert exported.preprocessing == preprocessing
    weights = exported.weights()
    for name, value in model.image.state_dict().items():
        assert torch.equal(value, weights[f"image.{name}"])
    assert not torch.equal(weights["image_projection.weight"], model.image_projection.weight)


def test_shuffled_pairs_need_no_ontology(drawings_store: ArtifactStore) -> None:
    inputs = {"shards": drawings_store.resolve("shard-dataset/drawings")}
    config = changed(policy={"kind": "shuffled"}, training={**QUICK["training"], "steps": 2})
    artifact = run_stage(PretrainClip(), config, inputs, store=drawings_store)
    assert artifact.read("curriculum.jsonl") == b""
    with pytest.raises(InputError, match="needs an ontology"):
        run_stage(PretrainClip(), changed(), inputs, store=drawings_store)


def test_held_out_pairs_are_not_trained_on_by_any_policy(drawings_store: ArtifactStore) -> None:
    shards = drawings_store.resolve("shard-dataset/drawings")
    config = OntologyConfig(min_count=4, pairs_per_node=4, held_out_share=0.3, use_validation_split=False)
    artifact = run_stage(BuildOntology(), config, {"shards": shards}, store=drawings_store)
    opened = Inputs.open({"shards": shards, "ontology": artifact})
    ontology = Ontology.open(artifact)
    assert len(ontology.held_out) > 20
    assert not np.isin(opened.training_pairs(), ontology.held_out).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"accumulation": 2}}, "accumulation must be 1"),
        ({"freeze_tower": True}, "no trained image backbone to freeze"),
        ({"templates": ["an emoji"]}, "needs exactly one {}"),
        ({"text": {"width": 10, "heads": 3}}, "3 heads do not divide the width 10"),
        ({"new_tower": {"model": {"name": "vit_mikro"}}}, "vit_micro"),
        ({"policy": {**QUICK["policy"], "held_out_batch": 33}}, "only 32 distinct contents are held out"),
        ({"policy": {**QUICK["policy"], "nodes_per_batch": 17}}, "more than the global batch of 16"),
    ],
)
def test_impossible_configs_are_refused(drawings_store: ArtifactStore, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_stage(PretrainClip(), changed(**changes), inputs_of(drawings_store), store=drawings_store)


@pytest.mark.gpu
@pytest.mark.usefixtures("without_tf32")
def test_an_encoder_trained_on_a_gpu_has_the_same_features_there_as_on_a_cpu(trained: Artifact) -> None:
    assert json.loads(trained.read("training.json"))["device"] == torch.cuda.get_device_name()
    assert trained.summary["val_text_recall_at_1"] > 5 / 32
    exported = ExportedModel.open(trained)
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tokens = exported.tokenizer().encode(["a red square", "an emoji of a blue ring", "a"])
    found = []
    for device in ("cpu", "cuda"):
        model: Any = exported.build().to(device)
        with torch.no_grad():
            seen = model.encode_image(exported.preprocessing.normalise(images.to(device)))
            found.append((seen.cpu(), model.encode_text(tokens.to(device)).cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_a_step_does_not_wait_for_the_gpu(drawings_store: ArtifactStore, no_waiting: Any) -> None:
    config = changed(policy={"kind": "shuffled"})
    uri = drawings_store.resolve("shard-dataset/drawings").name
    recipe = ContrastiveRecipe(config, drawings_store.storage.url, (("shards", uri),))
    parts = recipe.build(torch.device("cuda", 0), 0, 1)
    for batch in parts.loader.batches(0, 3):
        with no_waiting(batch.step):
            with torch.autocast("cuda", torch.bfloat16):
                loss = parts.task.training_step(parts.model, batch).loss
            loss.backward()


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("kind", ["tonics", "shuffled"])
def test_the_resolution_follows_the_epochs_of_the_training_and_resumes_at_any_step(
    drawings_store: ArtifactStore, kind: str, copies: int
) -> None:
    """The curriculum counts every step as an epoch of its augmentation, and has a state."""
    config = changed(
        policy={**QUICK["policy"], "refresh_every_steps": 7} if kind == "tonics" else {"kind": kind},
        training={"epochs": 3, "global_batch": 16},
        loader={"copies": copies, "smaller_sizes": [16, 24], "prefetch": 1},
    )
    names = tuple(sorted((name, artifact.name) for name, artifact in inputs_of(drawings_store).items()))
    recipe = ContrastiveRecipe(config, drawings_store.storage.url, names)
    objects = recipe.build(torch.device("cpu"), 0, 1)
    policy, total = objects.loader.policy, config.training.total_steps(objects.epoch_samples)
    states, batches = [], []
    while len(batches) < total:
        if policy.ready_until() == len(batches):
            policy.refresh(dict.fromkeys(policy.frontier, 1.0))  # type: ignore[attr-defined]
        stop = min(total, policy.ready_until() or total)
        for batch in objects.loader.batches(len(batches), stop):
            states.append(policy.state())
            batches.append(batch)
    epochs = [step * 16 // objects.epoch_samples for step in range(total)]
    assert [batch.images.shape[-1] for batch in batches] == [(16, 24, 32)[epoch] for epoch in epochs]
    resumed = recipe.build(torch.device("cpu"), 0, 1).loader
    for step, (state, batch) in enumerate(zip(states, batches, strict=True)):
        resumed.policy.load_state(state)
        assert torch.equal(next(resumed.batches(step, step + 1)).images, batch.images)
