"""Building a dual encoder: its arguments, its preprocessing and its initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from model_defs import LoadingReport, ModelError, create_model
from model_defs.clip import CLIP
from pipeline.artifacts import Artifact
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.inputs import WEIGHTS_INPUTS, Inputs
from pipeline.contrastive.text_backbone import build_tokenizer, freeze_backbone
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing
from pipeline.training.starting_weights import open_weights


def image_preprocessing(config: ContrastiveConfig, classifier: ExportedModel | None) -> Preprocessing:
    """The preprocessing of the trained classifier if there is one, else of the new backbone."""
    return classifier.preprocessing if classifier is not None else config.new_tower.preprocessing()


def model_kwargs(config: ContrastiveConfig, inputs: Inputs) -> dict[str, Any]:
    """The arguments of `create_model("clip", ...)`, plain JSON values."""
    classifier = inputs.classifier
    if classifier is not None:
        name = classifier.architecture
        kwargs = {key: value for key, value in classifier.kwargs.items() if key != "num_classes"}
    else:
        new = config.new_tower
        name = new.model.name
        kwargs = {**new.model.kwargs, "img_size": new.image_size, "in_chans": new.channels}
    text = config.text.model_kwargs(build_tokenizer(config.text, inputs.text_weights).vocabulary_size)
    return {"image_tower": name, "image_kwargs": kwargs, **text, "embed_dim": config.embed_dim}


def build_model(config: ContrastiveConfig, inputs: Inputs) -> CLIP:
    """A dual encoder; its image backbone has the classifier's weights without the head, or imported weights.

    Raises:
        InputError: the arguments or the weights do not fit the model.
    """
    trained = inputs.classifier is not None or inputs.image_weights is not None
    if config.freeze_tower and not trained:
        raise InputError(
            "freeze_tower=true: there is no trained image backbone to freeze; give one as input, or set it to false"
        )
    model = _new_model(config, inputs)
    if inputs.classifier is not None:
        load_classifier_weights(model.image, inputs.classifier)
    elif inputs.image_weights is not None:
        inputs.image_weights.load_into(model.image, normalisation=config.new_tower.normalisation)
    if inputs.text_weights is not None:
        inputs.text_weights.load_into(model.text)
    for parameter in model.image.parameters():
        parameter.requires_grad_(not config.freeze_tower)
    freeze_backbone(config.text, model.text)
    return model


def _new_model(config: ContrastiveConfig, inputs: Inputs) -> CLIP:
    try:
        model = create_model("clip", **model_kwargs(config, inputs))
    except (ModelError, TypeError) as error:
        raise InputError(f"dual encoder: {error}") from None
    assert isinstance(model, CLIP)
    return model


def weight_loading_reports(config: ContrastiveConfig, inputs: Mapping[str, Artifact]) -> list[LoadingReport]:
    """The reports on imported weights, for the backbones that have them, from loading on the meta device.

    Raises:
        InputError: the weights do not fit these backbones, or the config and the inputs disagree.
    """
    requested = (config.new_tower.model.pretrained if "tower" not in inputs else None, config.text.pretrained)
    given = [
        open_weights(pretrained, inputs.get(name), field, name)
        for pretrained, name, field in zip(
            requested, WEIGHTS_INPUTS, ("new_tower.model.pretrained", "text.pretrained"), strict=True
        )
    ]
    with torch.device("meta"):
        model = _new_model(config, Inputs.open(inputs, captions_from=config.captions_from, keep=config.keep))
    backbones = (model.image, model.text)
    normalisations = (config.new_tower.normalisation if given[0] is not None else "", "")
    return [
        weights.load_into(backbone, normalisation=normalisation)
        for weights, backbone, normalisation in zip(given, backbones, normalisations, strict=True)
        if weights is not None
    ]


def load_classifier_weights(image: nn.Module, classifier: ExportedModel) -> None:
    """Loads a classifier's weights, without its head, into the image backbone."""
    weights = classifier.weights()
    wanted = image.state_dict()
    wrong = [name for name, value in wanted.items() if name not in weights or weights[name].shape != value.shape]
    if wrong:
        raise InputError(f"{classifier.folder}: its weights do not fit the image backbone: {', '.join(wrong[:3])}")
    image.load_state_dict({name: weights[name] for name in wanted})
