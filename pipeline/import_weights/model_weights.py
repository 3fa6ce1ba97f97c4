"""The import of weights with which a model's training starts."""

from __future__ import annotations

from model_defs import ModelError
from model_defs.pretrained.torchvision_weights import TorchvisionSource
from pipeline.artifacts import ArtifactStore
from pipeline.contrastive.text_backbone_config import TextBackboneConfig
from pipeline.errors import InputError
from pipeline.import_weights.sources import find_weights
from pipeline.import_weights.stage import ImportConfig, ImportWeights
from pipeline.stage import stage_key
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


def check_reachable(config: ImportConfig, store: ArtifactStore) -> None:
    """Checks that the weights of a resolved config are in the store, or can be fetched here; fetches nothing.

    Raises:
        InputError: they are torchvision's, and their server does not answer.
    """
    if store.find(f"{ImportWeights.name}/{stage_key(ImportWeights(), config, {})}") is not None:
        return
    source = find_weights(config.source, store)
    if isinstance(source, TorchvisionSource):
        try:
            source.check_reachable()
        except ModelError as error:
            raise InputError(str(error)) from None
