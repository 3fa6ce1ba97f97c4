"""Trained weights that a run's models start from: one stage more for each model whose config names some."""

from __future__ import annotations

from flows.stage_run import Made, StageRun
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.text_backbone import TextBackboneConfig
from pipeline.import_weights.model_weights import import_config
from pipeline.import_weights.stage import ImportWeights
from pipeline.training.model_config import ModelConfig


def weights_of(
    run: StageRun, model: ModelConfig | TextBackboneConfig, subject: str, name: str = "weights"
) -> dict[str, Made]:
    """The input `name` of a training of `model`; none if it starts from fresh weights.

    Args:
        subject: whose weights they are, for the display, e.g. "teacher".
    """
    config = import_config(model, run.store)
    return {} if config is None else {name: run.make(ImportWeights(), config, label=f"import {subject} weights")}


def image_tower_weights(run: StageRun, clip: ContrastiveConfig) -> dict[str, Made]:
    """The imported weights of a dual encoder's new image tower, if it names some."""
    return weights_of(run, clip.new_tower.model, "image tower", "image-weights")


def text_tower_weights(run: StageRun, clip: ContrastiveConfig) -> dict[str, Made]:
    """The imported weights of a dual encoder's text tower, if it names some."""
    return weights_of(run, clip.text, "text tower", "text-weights")
