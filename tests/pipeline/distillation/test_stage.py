"""The stage distill-student, on digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.distillation.loss_config import DistillationLossConfig
from pipeline.distillation.stage import DistillStudent
from pipeline.distillation.task import Distillation
from pipeline.distillation.teacher import FrozenTeacher
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.loading.batch import Batch
from pipeline.preprocessing import Preprocessing
from pipeline.stage import run_stage
from pipeline.training.mixing import draw_mix
from pipeline.training.mixing_config import MixingConfig
from pipeline.training.worker import CheckpointLocation
from tests.ranks import run_ranks

DIGITS = tuple("0123456789")
SIDE = 8


def test_a_student_comes_to_agree_with_its_teacher(
    store: ArtifactStore, shards: Artifact, build_teacher: Any, config: Any
) -> None:
    teacher = build_teacher(store)
    student = run_stage(DistillStudent(), config(), {"shards": shards, "teacher": teacher}, store=store)
    rows = [json.loads(line) for line in student.read("metrics.jsonl").decode().splitlines()]
    agreement = [row["val/agreement"] for row in rows if "val/agreement" in row]
    assert agreement[-1] > 0.6
    assert student.summary["val_agreement"] == pytest.approx(agreement[-1], abs=1e-4)
    exported = ExportedModel.open(student)
    assert exported.labels == DIGITS
    assert exported.build()(torch.zeros(1, 1, SIDE, SIDE)).shape == (1, 10)


RANK = """
from pipeline.distillation.config import DistillationConfig
from pipeline.distillation.stage import DistillationRecipe
from pipeline.training.reporter import NullReporter
from pipeline.training.worker import CheckpointLocation, train_recipe

store, config, shards, teacher = arguments
recipe = DistillationRecipe(DistillationConfig.model_validate_json(config), store, shards, teacher)
location = CheckpointLocation(store, "work/ranks")
train_recipe(recipe, torch.device("cpu"), rank, world, location, NullReporter())
"""


def test_a_student_divided_among_two_workers_ends_where_one_worker_ends(
    store: ArtifactStore, shards: Artifact, build_teacher: Any, config: Any, tmp_path: Path
) -> None:
    teacher = build_teacher(store)
    training = {"steps": 4, "global_batch": 25, "optimizer": {"kind": "sgd", "lr": 0.05}, "precision": "float32"}
    student = run_stage(
        DistillStudent(), config(training=training), {"shards": shards, "teacher": teacher}, store=store
    )
    divided = config(training={**training, "parallelism": "fsdp"})
    run_ranks(tmp_path, RANK, 2, store.storage.url, divided.model_dump_json(), shards.name, teacher.name)
    last = CheckpointLocation(store.storage.url, "work/ranks").open().newest()
    assert last is not None
    for name, value in ExportedModel.open(student).weights().items():
        torch.testing.assert_close(last.tensors["model"][name], value, rtol=1e-5, atol=1e-6)
    (measured,) = [row for row in last.notes["rows"] if "val/agreement" in row]
    assert measured["val/agreement"] == pytest.approx(student.summary["val_agreement"], abs=1e-4)


@pytest.mark.parametrize(
    ("teacher", "change", "words"),
    [
        ({"labels": (*DIGITS[:9], "nine")}, {}, "its labels are not those of the shards .e.g. '9' is not in both"),
        ({"labels": DIGITS[::-1]}, {}, "they are in another order"),
        ({"channels": 3}, {}, "takes images of 3 channels, the student of 1; set channels=3"),
        ({}, {"distillation": {"method": "soft"}}, "set student.distillation.method=token"),
        (
            {},
            {"model": {"name": "vit_micro", "kwargs": {"patch_size": 4}}},
            "set student.distillation.method=soft or hard",
        ),
    ],
)
def test_a_teacher_or_student_that_does_not_fit_is_refused(
    store: ArtifactStore,
    shards: Artifact,
    build_teacher: Any,
    config: Any,
    teacher: dict[str, Any],
    change: dict[str, Any],
    words: str,
) -> None:
    inputs = {"shards": shards, "teacher": build_teacher(store, **teacher)}
    with pytest.raises(InputError, match=words):
        run_stage(DistillStudent(), config(**change), inputs, store=store)


def test_the_teacher_sees_the_mixed_view_in_its_own_size_and_normalisation() -> None:
    class RecordingModel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return x.flatten(1)[:, :3]

    teacher_model, student = RecordingModel(), RecordingModel()
    teacher = FrozenTeacher(teacher_model, Preprocessing(16, 1, (0.0,), (1.0,)), torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 1, 1, 1), dtype=torch.uint8, generator=random).expand(4, 1, 8, 8)
    ids = torch.arange(4)
    batch = Batch(images, ids, torch.tensor([0, 1, 2, 0]), ids, None, 3, 0, 4)
    mixing = MixingConfig(mixup=1.0)
    task = Distillation(
        teacher, Preprocessing(8, 1, (0.5,), (0.5,)), DistillationLossConfig(method="soft"), mixing=mixing, seed=1
    )
    output = task.training_step(student, batch)
    mix = draw_mix(mixing, 1, 3)
    assert mix is not None
    plain = images.float()[:, 0, 0, 0] / 255
    mixed = mix.weight * plain + (1 - mix.weight) * plain[[1, 0, 3, 2]]
    torch.testing.assert_close(teacher_model.seen, mixed[:, None, None, None].expand(4, 1, 16, 16))
    torch.testing.assert_close(student.seen, ((mixed - 0.5) / 0.5)[:, None, None, None].expand(4, 1, 8, 8))
    assert set(output.metrics) == {"accuracy", "agreement", "label_loss"}


def test_teacher_and_student_each_see_colours_by_their_own_numbers() -> None:
    seen: dict[str, Tensor] = {}

    class Watched(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            seen[self.name] = x
            return x.flatten(1)[:, :3]

    teachers = Preprocessing(2, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    teacher = FrozenTeacher(Watched("teacher"), teachers, torch.device("cpu"))
    task = Distillation(teacher, Preprocessing(2, 3, (0.5,) * 3, (0.25,) * 3), DistillationLossConfig(method="soft"))
    images = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    ids = torch.arange(2)
    task.training_step(Watched("student"), Batch(images, ids, torch.tensor([0, 1]), ids, None, 0, 0, 2))
    by_teacher = torch.tensor([(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(seen["teacher"][0, :, 0, 0], by_teacher)
    torch.testing.assert_close(seen["student"][0, :, 0, 0], torch.tensor([2.0, -2.0, -1.2]))
