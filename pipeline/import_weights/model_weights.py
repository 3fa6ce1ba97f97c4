"""The import that a model's config asks for."""

from __future__ import annotations

from pipeline.artifacts import ArtifactStore
from pipeline.contrastive.text_backbone import TextBackboneConfig
from pipeline.import_weights.stage import ImportConfig
from pipeline.training.model_config import ModelConfig


def import_config(model: ModelConfig | TextBackboneConfig, store: ArtifactStore) -> ImportConfig | None:
    """The import of what a model starts from, as it is now; None if it starts from fresh weights.

    Raises:
        InputError: there are no such weights, or they cannot be had here.
    """
    if model.pretrained is None:
        return None
    texts = {"reads_texts": True, "tokenizer": model.tokenizer} if isinstance(model, TextBackboneConfig) else {}
    return ImportConfig.for_model(model.name, model.pretrained, **texts).resolved(store)
