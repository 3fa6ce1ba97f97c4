"""Students trained on stored outputs of a teacher for the stored images, without running the teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import digest
from pipeline.distillation.loss_config import DistillationLossConfig
from pipeline.distillation.stage import DistillStudent
from pipeline.distillation.stored_teacher import StoredTeacher
from pipeline.distillation.teacher import FrozenTeacher
from pipeline.distillation.teacher_outputs import ComputeTeacherOutputs, TeacherOutputsConfig
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.loading.batch import Batch
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.sharding.joining.stage import JoinColumns
from pipeline.stage import run_stage

CPU = torch.device("cpu")
STORED = {"teacher_column": "logits"}
RANDOM = np.random.default_rng(0).normal(size=(200, 10))
PROBABILITIES = np.exp(RANDOM) / np.exp(RANDOM).sum(axis=1, keepdims=True)


@pytest.fixture
def teacher(store: ArtifactStore, build_teacher: Any) -> Artifact:
    artifact: Artifact = build_teacher(store)
    return artifact


def outputs_of(store: ArtifactStore, shards: Artifact, teacher: Artifact, **config: Any) -> Artifact:
    inputs = {"shards": shards, "teacher": teacher}
    return run_stage(ComputeTeacherOutputs(), TeacherOutputsConfig(**config), inputs, store=store)


def joined(store: ArtifactStore, shards: Artifact, path: Path, values: Any, **config: Any) -> Artifact:
    """A column "logits" joined from a Parquet file, with `values` [n, K] for the first n samples."""
    keys = [f"digit{number:03d}" for number in range(len(values))]
    pq.write_table(pa.table({"key": keys, "logits": pa.array([list(map(float, row)) for row in values])}), path)
    resolved = JoinColumnsConfig(source=str(path), **config).resolved()
    return run_stage(JoinColumns(), resolved, {"shards": shards}, store=store)


def train(store: ArtifactStore, config: Any, **inputs: Artifact) -> list[dict[str, Any]]:
    artifact = run_stage(DistillStudent(), config, inputs, store=store)
    return [json.loads(line) for line in artifact.read("metrics.jsonl").decode().splitlines()]


def test_stored_outputs_are_those_of_the_teacher_on_the_stored_images(
    store: ArtifactStore, shards: Artifact, teacher: Artifact
) -> None:
    artifact = outputs_of(store, shards, teacher)
    index = SampleIndex.open(shards)
    stored = JoinedColumns.open(artifact, index).numbers("logits")
    model = FrozenTeacher.from_exported_model(ExportedModel.open(teacher), CPU)
    reader = SampleReader.open(shards)
    right = 0
    for batch in evaluation_batches(reader, index, index.rows(), image_size=32, channels=1, batch_size=64):
        logits = model.logits(batch.images)
        np.testing.assert_allclose(stored[batch.ids], logits.numpy(), rtol=1e-5, atol=1e-6)
        right += int((logits.argmax(dim=-1) == batch.labels).sum())
    accuracy = round(right / 200, 4)
    words = f"10 outputs of 200 images, accuracy {accuracy:.1%}"
    assert artifact.summary == {"samples": 200, "classes": 10, "accuracy": accuracy, "headline": words}


def test_a_student_of_stored_outputs_trains_as_with_the_teacher_itself(
    store: ArtifactStore, shards: Artifact, teacher: Artifact, config: Any
) -> None:
    """Without augmentation and at the teacher's size, both see the same images, so the losses are equal."""
    small: dict[str, Any] = {
        "image_size": 32,
        "training": {"steps": 8, "global_batch": 25, "log_every_steps": 2, "accumulation": 2, "precision": "float32"},
    }
    loss = {"method": "token", "token_target": "soft"}
    live = train(store, config(**small, distillation=loss), shards=shards, teacher=teacher)
    columns = outputs_of(store, shards, teacher)
    stored = train(store, config(**small, distillation={**loss, **STORED}), shards=shards, columns=columns)
    for name in ("train/loss", "train/agreement", "val/agreement", "val/loss"):
        ends = [[row[name] for row in rows if name in row] for rows in (live, stored)]
        assert ends[0]
        assert ends[0] == pytest.approx(ends[1], rel=1e-4), name


def test_a_student_comes_to_agree_with_stored_outputs_and_needs_no_teacher(
    store: ArtifactStore, shards: Artifact, teacher: Artifact, config: Any
) -> None:
    columns = outputs_of(store, shards, teacher, dtype="float16")
    inputs = {"shards": shards, "columns": columns}
    student = run_stage(DistillStudent(), config(distillation=STORED), inputs, store=store)
    assert set(student.manifest["inputs"]) == {"shards", "columns"}
    assert student.summary["val_agreement"] > 0.5
    assert student.summary["stored_teacher_accuracy"] == pytest.approx(columns.summary["accuracy"], abs=0.1)


def batch_of(values: torch.Tensor) -> Batch:
    ids = torch.arange(len(values))
    images = torch.zeros(len(values), 1, 8, 8, dtype=torch.uint8)
    return Batch(images, ids, ids, ids, None, 0, 0, len(values), {"logits": values})


def test_mixed_images_have_mixed_probabilities(store: ArtifactStore, shards: Artifact, teacher: Artifact) -> None:
    columns = JoinedColumns.open(outputs_of(store, shards, teacher), SampleIndex.open(shards))
    values = torch.randn(4, 10, generator=torch.Generator().manual_seed(0)) * 3
    batch = batch_of(values)
    stored = StoredTeacher(columns, "logits", "logits")
    assert torch.equal(stored.batch_logits(batch, batch.images, [1.0]), values)
    mixed = stored.batch_logits(batch, batch.images, [0.7, 0.3]).softmax(-1)
    expected = values.softmax(-1)
    torch.testing.assert_close(mixed, 0.7 * expected + 0.3 * expected[[1, 0, 3, 2]])
    part = stored.batch_logits(batch.rows(1, 3), batch.images[1:3], [0.7, 0.3]).softmax(-1)
    torch.testing.assert_close(part, mixed[1:3])
    probabilities = StoredTeacher(columns, "logits", "probabilities")
    logits = probabilities.batch_logits(batch_of(expected), batch.images, [1.0])
    torch.testing.assert_close(logits.softmax(-1), expected)


def test_outputs_of_the_training_split_alone_are_enough(
    store: ArtifactStore, shards: Artifact, teacher: Artifact, config: Any
) -> None:
    columns = outputs_of(store, shards, teacher, splits=("train",))
    short = config(distillation=STORED, training={"steps": 2, "global_batch": 50})
    rows = train(store, short, shards=shards, columns=columns)
    assert "val/accuracy" in rows[-1]
    assert "val/agreement" not in rows[-1]


@pytest.mark.parametrize(
    ("values", "changes", "words"),
    [
        (RANDOM[:, :9], {}, "has float32 x 9 per sample; a teacher for these shards has 10 floats"),
        (RANDOM[:120], {}, "30 of 150 training samples have no value, e.g. 'digit120'"),
        (RANDOM, {"teacher_column": "logitz"}, "'logitz'; did you mean logits"),
        (RANDOM, {"teacher_outputs": "probabilities"}, "not probabilities; set distillation.teacher_outputs=logits"),
        (PROBABILITIES, {}, "are probabilities; set distillation.teacher_outputs=probabilities"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(
    store: ArtifactStore,
    shards: Artifact,
    tmp_path: Path,
    config: Any,
    values: Any,
    changes: dict[str, Any],
    words: str,
) -> None:
    columns = joined(store, shards, tmp_path / "outputs.parquet", values, max_missing_share=0.5)
    student = config(distillation={**STORED, **changes})
    with pytest.raises(InputError, match=words):
        run_stage(DistillStudent(), student, {"shards": shards, "columns": columns}, store=store)


def test_missing_outputs_are_reported(store: ArtifactStore, shards: Artifact, config: Any) -> None:
    with pytest.raises(InputError, match="teacher_column: logits: no columns were joined"):
        run_stage(DistillStudent(), config(distillation=STORED), {"shards": shards}, store=store)
    with pytest.raises(InputError, match=r"needs a teacher, or distillation\.teacher_column"):
        run_stage(DistillStudent(), config(), {"shards": shards}, store=store)


def test_a_teacher_with_other_labels_is_refused(store: ArtifactStore, shards: Artifact, build_teacher: Any) -> None:
    with pytest.raises(InputError, match="its labels are not those of the shards"):
        outputs_of(store, shards, build_teacher(store, labels=tuple("9876543210")))


def test_keys_of_students_from_before_teacher_column_are_unchanged() -> None:
    plain = DistillationLossConfig()
    older = {"method": "token", "token_target": "hard", "temperature": 3.0, "weight": 0.5}
    assert digest(plain) == digest(older)
    assert digest(plain) != digest(DistillationLossConfig(teacher_column="logits"))
