"""Checks that a model can be trained at the image sizes of progressive resizing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_defs import ModelError
from pipeline.errors import InputError
from pipeline.loading.loader_config import LoaderConfig

if TYPE_CHECKING:
    from torch import nn


def check_sizes(model: nn.Module, loader: LoaderConfig, channels: int) -> None:
    """Runs an image model (on the meta device) at each of `loader.smaller_sizes` (progressive resizing).

    Raises:
        InputError: the model accepts only one size, as transformers do.
    """
    import torch

    for size in loader.smaller_sizes:
        try:
            model(torch.empty(2, channels, size, size, device="meta"))
        except ModelError as error:
            raise InputError(f"loader.smaller_sizes: the model takes no images of {size} pixels ({error})") from None
