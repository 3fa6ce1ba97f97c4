"""The import that a model's config requires."""

from __future__ import annotations

from pipeline.artifacts import ArtifactStore
from pipeline.contrastive.text_backbone import TextBackboneConfig
from pipeline.import_weights.stage import ImportConfig
from pipeline.training.model_config import ModelConfig


def import_config(model: ModelConfig | TextBackboneConfig, store: ArtifactStore) -> ImportConfig | None:
    """The import of a model's initial weights in their current version; None if they are random.

    Raises:
        InputError: there are no such weights, or they are not available here.
    """
    if model.pretrained is None:
        return None
    texts = {"reads_texts": True, "tokenizer": model.tokenizer} if isinstance(model, TextBackboneConfig) else {}
    return ImportConfig.for_model(model.name, model.pretrained, **texts).resolved(store)
