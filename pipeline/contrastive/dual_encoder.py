"""The dual encoder before its training: its arguments, its preprocessing and the weights it starts from."""

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
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel, Preprocessing
from pipeline.training.starting_weights import check_given


def preprocessing_of(config: ContrastiveConfig, tower: ExportedModel | None) -> Preprocessing:
    """The trained tower's own preprocessing, else that of the new tower."""
    if tower is not None:
        return tower.preprocessing
    new = config.new_tower
    return Preprocessing(new.image_size, new.channels, (new.mean,) * new.channels, (new.std,) * new.channels)


def model_kwargs(config: ContrastiveConfig, inputs: Inputs) -> dict[str, Any]:
    """The arguments of `create_model("clip", ...)`, plain JSON values."""
    tower = inputs.tower
    if tower is not None:
        name, kwargs = tower.architecture, {key: tower.kwargs[key] for key in tower.kwargs if key != "num_classes"}
    else:
        new = config.new_tower
        name = new.model.name
        kwargs = {**new.model.kwargs, "img_size": new.image_size, "in_chans": new.channels}
    text = config.text.model_kwargs(config.text.build_tokenizer(inputs.text_weights).vocabulary_size)
    return {"image_tower": name, "image_kwargs": kwargs, **text, "embed_dim": config.embed_dim}


def build_model(config: ContrastiveConfig, inputs: Inputs) -> CLIP:
    """A dual encoder; its image tower has the trained tower's weights, but for the head, or imported ones.

    Raises:
        InputError: the arguments do not fit, or the weights do not.
    """
    trained = inputs.tower is not None or inputs.image_weights is not None
    if config.freeze_tower and not trained:
        raise InputError("freeze_tower=true: there is no trained tower to keep; give one as input, or set it to false")
    model = _fresh_model(config, inputs)
    if inputs.tower is not None:
        load_tower(model.image, inputs.tower)
    elif inputs.image_weights is not None:
        inputs.image_weights.load_into(model.image)
    if inputs.text_weights is not None:
        inputs.text_weights.load_into(model.text)
    for parameter in model.image.parameters():
        parameter.requires_grad_(not config.freeze_tower)
    config.text.freeze_in(model.text)
    return model


def _fresh_model(config: ContrastiveConfig, inputs: Inputs) -> CLIP:
    try:
        model = create_model("clip", **model_kwargs(config, inputs))
    except (ModelError, TypeError) as error:
        raise InputError(f"dual encoder: {error}") from None
    assert isinstance(model, CLIP)
    return model


def starting_reports(config: ContrastiveConfig, inputs: Mapping[str, Artifact]) -> list[LoadingReport]:
    """What will become of imported weights, tower by tower.

    Raises:
        InputError: they are not weights of these towers, or the config and the inputs do not say the same.
    """
    asked = (config.new_tower.model.pretrained if "tower" not in inputs else None, config.text.pretrained)
    given = [
        check_given(pretrained, inputs.get(name), field, name)
        for pretrained, name, field in zip(
            asked, WEIGHTS_INPUTS, ("new_tower.model.pretrained", "text.pretrained"), strict=True
        )
    ]
    with torch.device("meta"):
        model = _fresh_model(config, Inputs.open(inputs, captions_from=config.captions_from, keep=config.keep))
    towers = (model.image, model.text)
    return [weights.load_into(tower) for weights, tower in zip(given, towers, strict=True) if weights is not None]


def load_tower(image: nn.Module, tower: ExportedModel) -> None:
    """Gives the image tower a classifier's weights; what the tower does not have is the classifier's head."""
    weights = tower.weights()
    wanted = image.state_dict()
    wrong = [name for name, value in wanted.items() if name not in weights or weights[name].shape != value.shape]
    if wrong:
        raise InputError(f"{tower.folder}: its weights do not fit the image tower: {', '.join(wrong[:3])}")
    image.load_state_dict({name: weights[name] for name in wanted})
