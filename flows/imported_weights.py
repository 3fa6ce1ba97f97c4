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


def weights_of(
    run: StageRun, model: ModelConfig | TextBackboneConfig, subject: str, name: str = "weights"
) -> dict[str, StageHandle]:
    """The input `name` for the training of `model`; empty if it starts from random weights.

    Args:
        subject: name of the model in the display, e.g. "teacher".
    """
    config = import_config(model, run.store)
    return {} if config is None else {name: run.submit(ImportWeights(), config, label=f"import {subject} weights")}


def with_backbone_normalisation(
    run: StageRun, clip: ContrastiveConfig, inputs: Mapping[str, StageHandle]
) -> ContrastiveConfig:
    """The config of a dual encoder, with the normalisation that the weights of its new image backbone expect.

    A trained classifier among the inputs has its own, and the weights of a new backbone are then not used.
    """
    tower = clip.new_tower
    if "tower" in inputs:
        tower = tower.model_copy(update={"model": tower.model.model_copy(update={"pretrained": None})})
    return clip.model_copy(update={"new_tower": with_normalisation(tower, run.store)})


def image_tower_weights(run: StageRun, clip: ContrastiveConfig) -> dict[str, StageHandle]:
    """The imported weights of a dual encoder's new image backbone, if its config names weights."""
    return weights_of(run, clip.new_tower.model, "image tower", "image-weights")


def text_tower_weights(run: StageRun, clip: ContrastiveConfig) -> dict[str, StageHandle]:
    """The imported weights of a dual encoder's text backbone, if its config names weights."""
    return weights_of(run, clip.text, "text tower", "text-weights")
