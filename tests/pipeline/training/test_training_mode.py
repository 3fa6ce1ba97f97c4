"""Frozen batch norm: the running statistics of pretrained weights, before and after a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import canonical_json
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.exported_model import ExportedModel
from pipeline.import_weights.stage import ImportConfig, ImportWeights
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import TrainTeacher
from pipeline.training.training_config import TrainingConfig
from pipeline.training.training_mode import set_training_mode

BuildConfig = Callable[..., ClassificationConfig]
NET = {"widths": [8, 16], "depths": [1, 1]}


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_frozen_batch_norm_normalises_by_its_running_statistics(norm: type[nn.BatchNorm1d]) -> None:
    model = nn.Sequential(norm(3), nn.Dropout())
    model.eval()
    set_training_mode(model, freeze_batch_norm=True)
    assert [module.training for module in model] == [False, True]
    set_training_mode(model, freeze_batch_norm=False)
    assert [module.training for module in model] == [True, True]


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_training_keeps_the_statistics_of_pretrained_weights_only(
    pretrained: bool, store: ArtifactStore, digits: Artifact, small_config: BuildConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    state = create_model("resnet_small", num_classes=10, in_chans=1, img_size=16, **NET).state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.fill_(2.0)
    save_file(state, tmp_path / "net.safetensors")
    source = ImportConfig(source=str(tmp_path / "net.safetensors")).resolved(store)
    weights = run_stage(ImportWeights(), source, {}, store=store)
    model = {"name": "resnet_small", "kwargs": NET, "pretrained": "net.safetensors" if pretrained else None}
    config = small_config(model=model, mean=0.5, std=0.25, steps=3, evaluate_every_epochs=0.5, freeze_batch_norm=True)
    inputs = {"shards": digits, "weights": weights} if pretrained else {"shards": digits}
    trained = ExportedModel.open(run_stage(TrainTeacher(), config, inputs, store=store)).weights()
    initial = load_file(weights.path("weights.safetensors"))
    statistics = [name for name in initial if "running_" in name]
    assert statistics
    assert all(torch.equal(trained[name], initial[name]) for name in statistics) is pretrained
    scales = [name.replace("running_mean", "weight") for name in statistics if name.endswith("running_mean")]
    assert not any(torch.equal(trained[name], initial[name]) for name in scales)


def test_frozen_batch_norm_is_for_classifiers_and_keys_without_it_are_as_before() -> None:
    with pytest.raises(ValueError, match="freeze_batch_norm: is for classifiers"):
        ContrastiveConfig(training=TrainingConfig(freeze_batch_norm=True))
    assert "freeze_batch_norm" not in canonical_json(TrainingConfig())
