"""Checks that a model can be trained at the image sizes of progressive resizing."""

from __future__ import annotations

import torch
from torch import nn

from model_defs import ModelError
from pipeline.errors import InputError
from pipeline.loading.loader import LoaderConfig


def check_sizes(model: nn.Module, loader: LoaderConfig, channels: int) -> None:
    """Runs an image model (on the meta device) at each of `loader.smaller_sizes` (progressive resizing).

    Raises:
        InputError: the model accepts only one size, as transformers do.
    """
    for size in loader.smaller_sizes:
        try:
            model(torch.empty(2, channels, size, size, device="meta"))
        except ModelError as error:
            raise InputError(f"loader.smaller_sizes: the model takes no images of {size} pixels ({error})") from None
