"""Distillation on a GPU: every method trains there, and stored outputs equal those of the CPU."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.distillation.loss_config import DistillationLossConfig
from pipeline.distillation.stage import DistillStudent
from pipeline.distillation.task import Distillation
from pipeline.distillation.teacher import FrozenTeacher
from pipeline.distillation.teacher_outputs import ComputeTeacherOutputs, TeacherOutputsConfig
from pipeline.exported_model import ExportedModel
from pipeline.loading.batch import Batch
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.reader import SampleReader
from pipeline.preprocessing import Preprocessing
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns
from pipeline.stage import run_stage
from pipeline.training.mixing_config import MixingConfig

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("without_tf32")]

GPU = torch.device("cuda", 0)
ONE_HEAD = {"name": "vit_micro", "kwargs": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2}}
METHODS = [
    pytest.param({"method": "soft"}, {"model": ONE_HEAD}, id="soft"),
    pytest.param({"method": "hard"}, {"model": ONE_HEAD}, id="hard"),
    pytest.param({"method": "token"}, {}, id="token"),
    pytest.param({"method": "token", "token_target": "soft"}, {}, id="token-soft"),
]


def rows_of(artifact: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.read("metrics.jsonl").decode().splitlines()]


@pytest.mark.parametrize(("distillation", "changes"), METHODS)
def test_a_student_comes_to_agree_with_its_teacher(
    store: ArtifactStore,
    shards: Artifact,
    build_teacher: Any,
    config: Any,
    distillation: dict[str, Any],
    changes: dict[str, Any],
) -> None:
    student = config(distillation=distillation, **changes)
    inputs = {"shards": shards, "teacher": build_teacher(store)}
    artifact = run_stage(DistillStudent(), student, inputs, store=store)
    assert json.loads(artifact.read("training.json"))["device"] == torch.cuda.get_device_name(GPU)
    rows = rows_of(artifact)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0]
    # An untrained teacher's probabilities are nearly uniform: as soft targets they do not teach its largest class
    # within a hundred steps.
    if "soft" not in distillation.values():
        assert [row["val/agreement"] for row in rows if "val/agreement" in row][-1] > 0.5


def test_outputs_stored_on_the_gpu_equal_those_of_the_cpu(
    store: ArtifactStore, shards: Artifact, build_teacher: Any, config: Any
) -> None:
    teacher = build_teacher(store)
    inputs = {"shards": shards, "teacher": teacher}
    columns = run_stage(ComputeTeacherOutputs(), TeacherOutputsConfig(), inputs, store=store)
    index = SampleIndex.open(shards)
    stored = JoinedColumns.open(columns, index).numbers("logits")
    on_cpu = FrozenTeacher.from_exported_model(ExportedModel.open(teacher), torch.device("cpu"))
    reader = SampleReader.open(shards)
    for batch in evaluation_batches(reader, index, index.rows(), image_size=32, channels=1, batch_size=64):
        np.testing.assert_allclose(stored[batch.ids], on_cpu.logits(batch.images).numpy(), rtol=1e-3, atol=1e-4)

    stored_teacher = config(distillation={"method": "token", "teacher_column": "logits"})
    student = run_stage(DistillStudent(), stored_teacher, {"shards": shards, "columns": columns}, store=store)
    assert [row["val/agreement"] for row in rows_of(student) if "val/agreement" in row][-1] > 0.5


def test_running_the_teacher_does_not_wait_for_the_gpu(no_waiting: Any) -> None:
    def net(side: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(side * side, 10))

    teacher = FrozenTeacher(net(16), Preprocessing(16, 1, (0.4,), (0.2,)), GPU)
    student, preprocessing = net(8).to(GPU), Preprocessing(8, 1, (0.5,), (0.25,))
    task = Distillation(
        teacher, preprocessing, DistillationLossConfig(method="soft"), mixing=MixingConfig(mixup=1.0), smoothing=0.1
    )
    ids = torch.arange(8)
    for step in range(3):
        images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
        batch = Batch(images, ids, ids, ids, None, step, 0, 8).to(GPU)
        with no_waiting(step):
            loss = task.training_step(student, batch).loss
            loss.backward()
        assert float(loss.detach()) > 0
