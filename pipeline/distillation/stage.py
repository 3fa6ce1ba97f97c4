"""The stage distill-student: labelled shards and a teacher -> an exported student, and its metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field

from pipeline.artifacts import Artifact
from pipeline.config import canonical_json
from pipeline.distillation.losses import DistillationLossConfig
from pipeline.distillation.task import Distillation, StudentEvaluation
from pipeline.distillation.teacher import FrozenTeacher
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.sharding.index import SampleIndex
from pipeline.stage import Workspace
from pipeline.training.classification import ClassifierEvaluation, without_auxiliary
from pipeline.training.plan import TrainingConfig
from pipeline.training.runner import execute
from pipeline.training.stage import (
    ClassificationConfig,
    ModelConfig,
    build_parts,
    export,
    open_artifact,
    open_optional,
    summary,
)
from pipeline.training.starting_weights import starting_report, write_report
from pipeline.training.task import Parts


class DistillationConfig(ClassificationConfig):
    """Training of a student on labels and on a teacher's answers."""

    model: ModelConfig = Field(ModelConfig(name="deit_micro_distilled"), description="The student.")
    distillation: DistillationLossConfig = Field(DistillationLossConfig(), description="What the teacher teaches.")

    def check(self, shards: Artifact, columns: Artifact | None = None) -> SampleIndex:
        index = super().check(shards, columns)
        with torch.device("meta"):
            model = self.build_model(len(index.label_names)).train()
            outputs = model(torch.empty(2, self.channels, self.image_size, self.image_size))
        has_token = isinstance(without_auxiliary(outputs), tuple)
        if has_token != (self.distillation.method == "token"):
            what = "has a distillation token" if has_token else "has no distillation token"
            right = "token" if has_token else "soft or hard"
            raise InputError(f"model {self.model.name!r} {what}; set distillation.method={right}")
        return index

    def check_teacher(self, teacher: Artifact, index: SampleIndex) -> ExportedModel:
        """Refuses a teacher that cannot teach this student.

        Raises:
            InputError: it is no classifier, or it speaks of other labels or other channels.
        """
        exported = ExportedModel.open(teacher)
        if exported.kind != "classifier":
            raise InputError(f"{teacher.uri}: is a {exported.kind}; a teacher must be a classifier")
        if exported.labels != index.label_names:
            differing = sorted(set(exported.labels) ^ set(index.label_names))
            how = f"e.g. {differing[0]!r} is not in both" if differing else "they stand in another order"
            raise InputError(f"{teacher.uri}: its labels are not those of the shards ({how}); train a teacher on them")
        if exported.preprocessing.channels != self.channels:
            raise InputError(
                f"{teacher.uri}: takes {exported.preprocessing.channels} channels, the student {self.channels}"
            )
        return exported


@dataclass(frozen=True)
class DistillationRecipe:
    """The TrainingRecipe of a student; `weights` names imported ones that it starts from."""

    config: DistillationConfig
    store_url: str
    shards: str
    teacher: str
    weights: str | None = None
    columns: str | None = None

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    def build(self, device: torch.device, rank: int, world: int) -> Parts:
        config = self.config
        teacher = FrozenTeacher.of(ExportedModel.open(open_artifact(self.store_url, self.teacher)), device)
        task = Distillation(
            teacher,
            config.preprocessing(),
            config.distillation,
            smoothing=config.label_smoothing,
            mixing=config.mixing,
            seed=config.training.seed,
        )
        shards = open_artifact(self.store_url, self.shards)
        weights, columns = (open_optional(self.store_url, uri) for uri in (self.weights, self.columns))
        parts = build_parts(config, shards, task, device, rank, world, weights, columns)
        if isinstance(parts.evaluate, ClassifierEvaluation):
            parts.evaluate = StudentEvaluation(parts.evaluate, config.preprocessing(), teacher)
        return parts


class DistillStudent:
    """Trains a student on labels and on a frozen teacher."""

    name: ClassVar[str] = "distill-student"
    version: ClassVar[int] = 1

    def run(self, config: DistillationConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Fills `work.output` with model/, metrics.jsonl and training.json.

        Args:
            inputs: "shards" and "teacher", an artifact with an exported classifier; "weights", imported ones, if
                model.pretrained is set; "columns", joined ones, if keep is.
        """
        shards, teacher, weights = inputs["shards"], inputs["teacher"], inputs.get("weights")
        index = config.check(shards, inputs.get("columns"))
        config.check_teacher(teacher, index)
        report = starting_report(config.model.pretrained, weights, lambda: config.build_model(len(index.label_names)))
        uris = {name: artifact.uri for name, artifact in inputs.items()}
        recipe = DistillationRecipe(
            config, work.store.storage.url, shards.uri, teacher.uri, uris.get("weights"), uris.get("columns")
        )
        result = execute(recipe, config.runner, work, params={**json.loads(canonical_json(config)), **uris})
        if report is not None:
            write_report(report, work.output)
        export(config, index.label_names, result, work)
        return summary(result)
