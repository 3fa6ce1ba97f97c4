"""The model to train: its name in the zoo, its arguments, and its initial weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from model_defs import ArgumentError, ModelError, create_model
from pipeline.config import Config, unkeyed
from pipeline.errors import InputError

if TYPE_CHECKING:
    from torch import nn

# Arguments of `create_model` that are not in `kwargs`, and what to do instead.
_SET_ELSEWHERE = {
    "num_classes": "is the number of labels of the data; leave it out",
    "in_chans": "is set by channels, next to model",
    "img_size": "is set by image_size, next to model",
    "pretrained": "would be fetched by every worker; set pretrained next to kwargs",
}


class ModelConfig(Config):
    """A model of the zoo, and its initial weights; `tutelage models` lists the models."""

    name: str = Field("resnet_small", description="Name of the model; `tutelage models` lists them.")
    kwargs: dict[str, Any] = Field({}, description="Keyword arguments of the model, e.g. widths or depth.")
    # Not in the key: the key contains the resulting import-weights artifact, which is an input of the training.
    pretrained: str | None = unkeyed(
        None,
        min_length=1,
        max_length=1000,
        description="Pretrained weights to start from: DEFAULT (the catalogue's), a torchvision name, a file or "
        "folder, hf:ORG/NAME, models:/NAME@alias, or STAGE/KEY of the store. null: random "
        "initialisation.",
    )

    @model_validator(mode="after")
    def _kwargs_are_those_of_the_model_alone(self) -> ModelConfig:
        for name, advice in _SET_ELSEWHERE.items():
            if name in self.kwargs:
                raise ValueError(f"kwargs.{name} {advice}")
        return self

    def build(self, *, num_classes: int, in_chans: int, img_size: int) -> nn.Module:
        """A new model with random weights.

        Raises:
            InputError: there is no such model, or it does not accept these arguments; the message names the argument.
        """
        try:
            return create_model(self.name, num_classes=num_classes, in_chans=in_chans, img_size=img_size, **self.kwargs)
        except ArgumentError as error:
            raise InputError(f"model.kwargs.{error.argument}: {error.problem} ({error.model})") from None
        except ModelError as error:
            raise InputError(f"model: {error}") from None

    def check(self, *, in_chans: int, img_size: int) -> None:
        """Builds the model on the meta device, without memory.

        Raises:
            InputError: there is no such model, or it does not accept these arguments.
        """
        import torch

        with torch.device("meta"):
            self.build(num_classes=2, in_chans=in_chans, img_size=img_size)
