"""The import of weights with which a model's training starts."""

from __future__ import annotations

from pipeline.artifacts import ArtifactStore
from pipeline.contrastive.text_backbone_config import TextBackboneConfig
from pipeline.import_weights.stage import ImportConfig
from pipeline.training.model_config import ModelConfig


def import_config(model: ModelConfig | TextBackboneConfig, store: ArtifactStore) -> ImportConfig | None:
    """The config of the stage that imports a model's initial weights; None if they are random.

    Weights that can change, e.g. a file, are identified by their current content.

    Raises:
        InputError: there are no such weights, or they are not available here.
    """
    if model.pretrained is None:
        return None
    texts = {"reads_texts": True, "tokenizer": model.tokenizer} if isinstance(model, TextBackboneConfig) else {}
    return ImportConfig.for_model(model.name, model.pretrained, **texts).resolved(store)
