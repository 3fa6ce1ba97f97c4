"""A classifier of two data sets in one: each with its share of the batches, stopped and gone on in the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.stage import EvaluateModel
from pipeline.exported_model import ExportedModel
from pipeline.loading.batch import Batch
from pipeline.sharding.format.index import SampleIndex
from pipeline.stage import run_stage
from pipeline.training.classification import Classification
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.interruption import StoppedError
from pipeline.training.reporter import NullReporter
from pipeline.training.stage import ClassificationRecipe, TrainTeacher
from pipeline.training.task import StepOutput
from pipeline.training.worker import CheckpointLocation, train_recipe

BuildConfig = Callable[..., ClassificationConfig]
BARS = {"kind": "mixture", "weights": {"digits": 3, "bars": 1}}


def test_every_batch_has_its_quota_and_the_model_knows_all_labels(
    store: ArtifactStore, both: Artifact, small_config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    whole = Classification.training_step

    def noted(self: Classification, model: torch.nn.Module, batch: Batch) -> StepOutput:
        seen.append(batch.ids.numpy())
        return whole(self, model, batch)

    monkeypatch.setattr(Classification, "training_step", noted)
    config = small_config(policy=BARS, steps=30, optimizer={"kind": "adamw", "lr": 3e-3})
    artifact = run_stage(TrainTeacher(), config, {"shards": both}, store=store)
    bars = SampleIndex.open(both).data_sets[0]
    assert bars.name == "bars"
    assert [int(np.count_nonzero(ids < bars.stop)) for ids in seen] == [8] * 30  # a quarter of 32
    # 240 draws from 30 training samples: each came eight times.
    drawn = np.bincount(np.concatenate([ids[ids < bars.stop] for ids in seen]), minlength=30)
    assert drawn.tolist() == [8] * 30
    assert ExportedModel.open(artifact).labels == ("bar", *"1023456789")
    evaluation = run_stage(
        EvaluateModel(), EvaluationConfig(split="val"), {"shards": both, "model": artifact}, store=store
    )
    metrics = json.loads(evaluation.read("metrics.json"))
    assert metrics["accuracy/samples_source/bars"] == 10
    assert metrics["accuracy/samples_source/digits"] == 57


def test_an_epoch_is_the_largest_data_set_once(store: ArtifactStore, both: Artifact, small_config: BuildConfig) -> None:
    config = small_config(policy=BARS, epochs=0.5, steps=None, global_batch=76)
    artifact = run_stage(TrainTeacher(), config, {"shards": both}, store=store)
    # 228 labelled digits at three quarters of the batches: 304 samples.
    assert json.loads(artifact.read("training.json"))["steps"] == 2


def test_a_stopped_training_ends_in_the_same_bits(
    store: ArtifactStore, both: Artifact, small_config: BuildConfig
) -> None:
    class StopAtStep7(NullReporter):
        steps = 0

        def stop_requested(self) -> bool:
            self.steps += 1
            return self.steps == 7

    config = small_config(steps=12, policy={**BARS, "order": {"kind": "streams", "streams": 4, "block": 10}})
    recipe = ClassificationRecipe(config, store.storage.url, both.name)
    ends: list[dict[str, Any]] = []
    for name in ("straight", "stopped"):
        location = CheckpointLocation(store.storage.url, f"work/{name}")
        if name == "stopped":
            with pytest.raises(StoppedError):
                train_recipe(recipe, torch.device("cpu"), 0, 1, location, StopAtStep7())
        train_recipe(recipe, torch.device("cpu"), 0, 1, location, NullReporter())
        last = location.open().newest()
        assert last is not None
        ends.append(last.tensors["model"])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(
    ("shards", "policy", "words"),
    [
        ("digits", BARS, "the shards are of one data set"),
        ("both", {"kind": "mixture", "weights": {"digits": 1, "barz": 1}}, "'barz'; did you mean bars"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_work(
    store: ArtifactStore,
    both: Artifact,
    digits: Artifact,
    small_config: BuildConfig,
    shards: str,
    policy: Any,
    words: str,
) -> None:
    with pytest.raises(InputError, match=words):
        run_stage(
            TrainTeacher(), small_config(policy=policy), {"shards": digits if shards == "digits" else both}, store=store
        )
