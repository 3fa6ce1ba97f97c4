"""torch.compile: the losses of a training without it, under the same names of weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.stage import run_stage
from pipeline.training import compilation
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.compilation import compile_model
from pipeline.training.stage import TrainTeacher
from pipeline.training.training_config import TrainingConfig

BuildConfig = Callable[..., ClassificationConfig]


def test_names_of_weights_do_not_change_and_blocks_are_compiled() -> None:
    for name in ("resnet_small", "lenet5"):  # the second has no blocks and is compiled as a whole
        model = create_model(name, num_classes=5)
        names = list(model.state_dict())
        compile_model(model)
        assert list(model.state_dict()) == names
        assert (model._compiled_call_impl is not None) == (name == "lenet5")
    assert sum(module._compiled_call_impl is not None for module in model.modules()) == 1


@pytest.mark.heavy
def test_a_compiled_training_has_the_losses_of_a_plain_one(
    store: ArtifactStore,
    other_store: ArtifactStore,
    digits: Artifact,
    small_config: BuildConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With stochastic depth, an average, accumulation, evaluation, export; 32 rows in 3 parts are of two sizes."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    rows, weights = [], []
    for where, compiled in ((store, False), (other_store, True)):
        config = small_config(
            steps=6, accumulation=3, log_every_steps=1, compile=compiled, optimizer={"kind": "sgd", "lr": 0.05}
        )
        shards = where.resolve(digits.name)
        artifact = run_stage(TrainTeacher(), config, {"shards": shards}, store=where)
        weights.append(ExportedModel.open(artifact).weights())
        rows.append(artifact.read("metrics.jsonl").decode().splitlines())
    losses = [[row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row] for lines in rows]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)
    assert any((tmp_path / "inductor").rglob("*.so"))


def test_a_machine_without_a_compiler_is_refused_before_work(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    config = small_config(compile=True, runner={"use_gpu": "no"})
    with pytest.raises(InputError, match=r"training.compile: no C\+\+ compiler"):
        run_stage(TrainTeacher(), config, {"shards": digits}, store=store)


def test_compilation_of_what_is_computed_again_is_refused() -> None:
    with pytest.raises(InputError, match="compile cannot compile what gradient_checkpointing computes again"):
        parse_config(TrainingConfig, {"compile": True, "gradient_checkpointing": True}, "here")
