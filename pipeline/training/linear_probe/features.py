"""Features of a frozen model: the input of the linear layer that computes its class scores."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.preprocessing import Preprocessing
from pipeline.training.precision import computes_in_bfloat16


class FrozenFeatures:
    """Computes the features of images, in evaluation mode; in bfloat16 if the device multiplies in it.

    Args:
        head_name: name of the only linear layer that computes the model's class scores.
    """

    def __init__(self, model: nn.Module, head_name: str, preprocessing: Preprocessing, device: torch.device) -> None:
        self._model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._preprocessing = preprocessing
        self.device = device
        self._head_input: Tensor | None = None
        self._head_output: Tensor | None = None
        model.get_submodule(head_name).register_forward_hook(self._note)

    def _note(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._head_input, self._head_output = inputs[0], output

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 [B, D] of uint8 images [B, C, H, W], on the device.

        Raises:
            InputError: the scores of the model are not those of its linear layer.
        """
        pixels = self._preprocessing.normalise(images.to(self.device))
        with _autocast(self.device):
            scores = self._model(pixels.contiguous(memory_format=torch.channels_last))
        features, output = self._head_input, self._head_output
        if features is None or output is None or features.dim() != 2 or not torch.equal(scores, output):
            raise InputError(
                "linear-probe: the model's scores are not those of its last linear layer; set baseline=null"
            )
        return features.float()


def _autocast(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if computes_in_bfloat16(device) else nullcontext()
