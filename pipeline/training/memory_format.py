"""The layout of images and convolutions in memory: contiguous (NCHW) or channels_last (NHWC)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

MemoryFormat = Literal["auto", "yes", "no"]


def set_memory_format(model: nn.Module, channels_last: MemoryFormat) -> None:
    """Converts weights, and at each call the images, to channels_last (yes) or contiguous (no); auto: nothing."""
    if channels_last == "auto":
        return
    memory_format = torch.channels_last if channels_last == "yes" else torch.contiguous_format

    def converted(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            arg.contiguous(memory_format=memory_format) if isinstance(arg, Tensor) and arg.ndim == 4 else arg
            for arg in args
        )

    model.to(memory_format=memory_format)
    model.register_forward_pre_hook(converted)
