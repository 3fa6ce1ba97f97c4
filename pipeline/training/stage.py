"""The stage train-teacher: labelled shards -> an exported classifier, and its metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.artifacts import Artifact
from pipeline.config import canonical_json
from pipeline.stage import Workspace
from pipeline.training.classification import Classification
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.classifier import build_training_objects, class_weights_of, export, mixed_steps_of, summary
from pipeline.training.input_artifacts import open_artifact, open_optional
from pipeline.training.runner import execute
from pipeline.training.starting_head import StartingHead
from pipeline.training.starting_weights import starting_report, write_report
from pipeline.training.task import TrainingObjects
from pipeline.training.training_config import TrainingConfig


@dataclass(frozen=True)
class ClassificationRecipe:
    """The TrainingRecipe of a classifier.

    Attributes:
        weights, probe: STAGE/KEY of the imported weights from which it starts, and of the linear probe with whose head
            it starts.
    """

    config: ClassificationConfig
    store_url: str
    shards: str
    weights: str | None = None
    columns: str | None = None
    probe: str | None = None

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    def build(self, device: torch.device, rank: int, world: int) -> TrainingObjects:
        shards = open_artifact(self.store_url, self.shards)
        weights, columns, probe = (
            open_optional(self.store_url, artifact_name) for artifact_name in (self.weights, self.columns, self.probe)
        )
        task = Classification(
            self.config.preprocessing(),
            smoothing=self.config.label_smoothing,
            mixing=self.config.mixing,
            mixed_steps=mixed_steps_of(self.config, shards, columns),
            class_weights=class_weights_of(self.config, shards, columns, device),
            loss=self.config.loss,
            target_threshold=self.config.target_threshold,
            seed=self.config.training.seed,
        )
        return build_training_objects(self.config, shards, task, device, rank, world, weights, columns, probe)


class TrainTeacher:
    """Trains a classifier: CNN or transformer, in process or on Ray Train."""

    name: ClassVar[str] = "train-teacher"
    version: ClassVar[int] = 2

    def recipe(self, config: ClassificationConfig, inputs: Mapping[str, str], store_url: str) -> ClassificationRecipe:
        """The recipe from the inputs' STAGE/KEY by name."""
        starts_from = {name: inputs.get(name) for name in ("weights", "columns", "probe")}
        return ClassificationRecipe(config, store_url, inputs["shards"], **starts_from)

    def run(self, config: ClassificationConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Fills `work.output` with model/, metrics.jsonl, training.json and, if it was measured, per_class.csv.

        Args:
            inputs: "shards"; "weights", imported weights, if model.pretrained is set; "columns", joined columns, if
                `keep` is set; "probe", a linear probe of these weights, with whose head the training starts.
        """
        shards, weights, probe = inputs["shards"], inputs.get("weights"), inputs.get("probe")
        index = config.check(shards, inputs.get("columns"))
        report = starting_report(config, weights, lambda: config.build_model(len(index.label_names)))
        if probe is not None:
            report = (
                StartingHead.open(probe).checked(config, index.label_names, weights).added_to_report(report, config)
            )
        artifact_names = {name: artifact.name for name, artifact in inputs.items()}
        params = {**json.loads(canonical_json(config)), **artifact_names}
        recipe = self.recipe(config, artifact_names, work.store.storage.url)
        result = execute(recipe, config.runner, work, params=params, labels=index.label_names)
        if report is not None:
            write_report(report, work.output)
        export(config, index.label_names, result, work)
        return summary(result)
