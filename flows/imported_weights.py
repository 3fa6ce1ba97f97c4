"""Pretrained weights of a run's models: a stage import-weights for each model whose config names weights."""

from __future__ import annotations

from collections.abc import Mapping

from flows.stage_run import StageHandle, StageRun
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.text_backbone_config import TextBackboneConfig
from pipeline.import_weights.expected_normalisation import with_normalisation
from pipeline.import_weights.model_weights import import_config
from pipeline.import_weights.stage import ImportWeights
from pipeline.training.model_config import ModelConfig


def import_model_weights(
    run: StageRun, model: ModelConfig | TextBackboneConfig, subject: str, name: str = "weights"
) -> dict[str, StageHandle]:
    """Submits the import of the weights that `model` names; returns {name: its handle}, empty if it names none.

    Args:
        subject: name of the model in the stage's label, e.g. "teacher".
        name: name of the input of the stage that trains the model.
    """
    config = import_config(model, run.store)
    return {} if config is None else {name: run.submit(ImportWeights(), config, label=f"import {subject} weights")}


def with_backbone_normalisation(
    run: StageRun, clip: ContrastiveConfig, inputs: Mapping[str, StageHandle]
) -> ContrastiveConfig:
    """The config of a dual encoder, with the normalisation that the weights of its new image backbone expect.

    With a trained classifier among the inputs, its own normalisation applies, and no weights are imported.
    """
    tower = clip.new_tower
    if "tower" in inputs:
        tower = tower.model_copy(update={"model": tower.model.model_copy(update={"pretrained": None})})
    return clip.model_copy(update={"new_tower": with_normalisation(tower, run.store)})


def import_image_weights(run: StageRun, clip: ContrastiveConfig) -> dict[str, StageHandle]:
    """Submits the import for a dual encoder's new image backbone; empty if its config names no weights."""
    return import_model_weights(run, clip.new_tower.model, "image backbone", "image-weights")


def import_text_weights(run: StageRun, clip: ContrastiveConfig) -> dict[str, StageHandle]:
    """Submits the import for a dual encoder's text backbone; empty if its config names no weights."""
    return import_model_weights(run, clip.text, "text backbone", "text-weights")
