"""The stage distill-student: labelled shards and a teacher -> an exported student, and its metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.artifacts import Artifact
from pipeline.config import canonical_json
from pipeline.distillation.config import DistillationConfig
from pipeline.distillation.stored_teacher import StoredTeacher, check_outputs
from pipeline.distillation.task import Distillation, StudentEvaluation
from pipeline.distillation.teacher import FrozenTeacher, Teacher, open_teacher
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns, open_columns
from pipeline.stage import Workspace
from pipeline.training.classifier import build_training_objects, class_weights_of, export, mixed_steps_of, summary
from pipeline.training.classifier_evaluation import ClassifierEvaluation
from pipeline.training.input_artifacts import open_artifact, open_optional
from pipeline.training.rows import labelled_rows, training_rows
from pipeline.training.runner import execute
from pipeline.training.starting_weights import starting_report, write_report
from pipeline.training.task import TrainingObjects
from pipeline.training.training_config import TrainingConfig


@dataclass(frozen=True)
class DistillationRecipe:
    """The TrainingRecipe of a student; artifacts are named STAGE/KEY.

    `teacher` is None if its outputs are in the columns; `weights` are imported weights to start from.
    """

    config: DistillationConfig
    store_url: str
    shards: str
    teacher: str | None
    weights: str | None = None
    columns: str | None = None

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    def build(self, device: torch.device, rank: int, world: int) -> TrainingObjects:
        config = self.config
        shards = open_artifact(self.store_url, self.shards)
        artifacts = (
            open_optional(self.store_url, artifact_name) for artifact_name in (self.teacher, self.weights, self.columns)
        )
        teacher_artifact, weights, columns = artifacts
        teacher, can_evaluate = self._teacher(teacher_artifact, shards, columns, device)
        task = Distillation(
            teacher,
            config.preprocessing(),
            config.distillation,
            smoothing=config.label_smoothing,
            mixing=config.mixing,
            mixed_steps=mixed_steps_of(config, shards, columns),
            class_weights=class_weights_of(config, shards, columns, device),
            seed=config.training.seed,
        )
        objects = build_training_objects(config, shards, task, device, rank, world, weights, columns)
        if isinstance(objects.evaluate, ClassifierEvaluation) and can_evaluate:
            objects.evaluate = StudentEvaluation(objects.evaluate, teacher)
        return objects

    def _teacher(
        self, teacher: Artifact | None, shards: Artifact, columns: Artifact | None, device: torch.device
    ) -> tuple[Teacher, bool]:
        """The teacher, and whether it has predictions for all validation images."""
        loss = self.config.distillation
        if loss.teacher_column is None:
            assert teacher is not None
            return FrozenTeacher.from_exported_model(ExportedModel.open(teacher), device), True
        assert columns is not None
        index = SampleIndex.open(shards)
        stored = StoredTeacher(JoinedColumns.open(columns, index), loss.teacher_column, loss.teacher_outputs)
        return stored, stored.covers(labelled_rows(index, "val"))


class DistillStudent:
    """Trains a student on labels and on a frozen teacher."""

    name: ClassVar[str] = "distill-student"
    version: ClassVar[int] = 2

    def recipe(self, config: DistillationConfig, inputs: Mapping[str, str], store_url: str) -> DistillationRecipe:
        """The recipe from the inputs' STAGE/KEY by name."""
        teacher = None if config.uses_stored_outputs else inputs.get("teacher")
        others = {name: inputs.get(name) for name in ("weights", "columns")}
        return DistillationRecipe(config, store_url, inputs["shards"], teacher, **others)

    def run(self, config: DistillationConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Writes model/, metrics.jsonl and training.json to `work.output`.

        Args:
            inputs: "shards"; "teacher", an artifact with an exported classifier, unless its outputs are joined;
                "weights", imported weights, if model.pretrained is set; "columns", joined columns, if `keep` or
                distillation.teacher_column is set.
        """
        shards, weights = inputs["shards"], inputs.get("weights")
        index = config.check(shards, inputs.get("columns"))
        stored = check_teacher(config, inputs.get("teacher"), inputs.get("columns"), index)
        report = starting_report(config, weights, lambda: config.build_model(len(index.label_names)))
        artifact_names = {name: artifact.name for name, artifact in inputs.items()}
        params = {**json.loads(canonical_json(config)), **artifact_names}
        recipe = self.recipe(config, artifact_names, work.store.storage.url)
        result = execute(recipe, config.runner, work, params=params, labels=index.label_names)
        if report is not None:
            write_report(report, work.output)
        export(config, index.label_names, result, work)
        return {**summary(result), **stored}


def check_teacher(
    config: DistillationConfig, teacher: Artifact | None, columns: Artifact | None, index: SampleIndex
) -> dict[str, float]:
    """Checks that the teacher fits the shards and the student; returns the accuracy of stored outputs, else {}.

    Raises:
        InputError: the teacher is not a classifier, or has other labels or channels; or its stored outputs are
            not in the columns, or lack a training sample.
    """
    if config.uses_stored_outputs:
        _, joined = open_columns(columns, index, keep=config.keep)
        if joined is None:
            raise InputError(
                f"distillation.teacher_column: {config.distillation.teacher_column}: no columns were joined to the "
                "shards; give their source as columns.source"
            )
        rows = training_rows(index, joined, config.keep)
        return {"stored_teacher_accuracy": round(check_outputs(config.distillation, joined, index, rows), 4)}
    if teacher is None:
        raise InputError("distill-student: needs a teacher, or distillation.teacher_column")
    exported = open_teacher(teacher, index)
    if exported.preprocessing.channels != config.channels:
        raise InputError(
            f"{teacher.name}: takes images of {exported.preprocessing.channels} channels, the student of "
            f"{config.channels}; set channels={exported.preprocessing.channels}, or choose another teacher"
        )
    return {}
