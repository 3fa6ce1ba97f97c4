"""The model to train: its name in the zoo, its arguments, and its initial weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from model_defs import ModelError, create_model
from pipeline.config import Config, unkeyed
from pipeline.errors import InputError

if TYPE_CHECKING:
    from torch import nn


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
    def _pretrained_is_not_in_kwargs(self) -> ModelConfig:
        if "pretrained" in self.kwargs:
            raise ValueError("kwargs.pretrained would be fetched by every worker; set pretrained next to kwargs")
        return self

    def build(self, *, num_classes: int, in_chans: int, img_size: int) -> nn.Module:
        """A new model with random weights.

        Raises:
            InputError: there is no such model, or it does not accept these arguments.
        """
        try:
            return create_model(self.name, num_classes=num_classes, in_chans=in_chans, img_size=img_size, **self.kwargs)
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
