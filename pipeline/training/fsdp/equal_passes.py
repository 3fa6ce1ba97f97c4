"""Evaluations of a sharded model, in which every rank makes as many forward passes as the one with the most batches.

In every pass, a rank gathers each block's weights from all ranks. A rank without a further batch would leave the others
waiting.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class EqualPasses(nn.Module):
    """The sharded model in an evaluation: announces each pass to the other ranks.

    Args:
        model: takes images [B, C, H, W].
        group: gloo group of all ranks.
    """

    def __init__(self, model: nn.Module, device: torch.device, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.model = model
        self._device = device
        self._group = group

    def forward(self, images: Tensor) -> Any:
        self._announce(tuple(images.shape[1:]))
        return self.model(images)

    def finish(self) -> None:
        """Joins the passes of the other ranks, on an empty image, until none has a batch left."""
        while any(shape := self._announce((0, 0, 0))):
            self.model(torch.zeros(1, *shape, device=self._device))

    def _announce(self, shape: tuple[int, ...]) -> list[int]:
        """The shape of an image that some rank passes; zeros if none does."""
        shapes = torch.tensor(shape)
        dist.all_reduce(shapes, dist.ReduceOp.MAX, group=self._group)
        return [int(size) for size in shapes]


def finish_passes(model: nn.Module) -> None:
    """After the last batch of an evaluation, on every rank; without effect if the model is not sharded."""
    if isinstance(model, EqualPasses):
        model.finish()
