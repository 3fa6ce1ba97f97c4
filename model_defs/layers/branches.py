"""Building blocks of the Inception nets: convolutions with batch norm, and parallel branches of them.

Szegedy et al. 2014, "Going Deeper with Convolutions", section 4: a module processes a feature map at several scales and
concatenates the results along the channel dimension. Parameter names are timm's (conv, bn; branch0, branch1, ...).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_defs.layers.squeeze_excite import SqueezeExcite


class Convolution(nn.Sequential):
    """A convolution, batch norm, ReLU.

    Args:
        channels, width: numbers of input and output channels.
        kernel: side of the kernel, or its height and width.
        padding: None: zero padding that keeps the size of the feature map at stride 1.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
    ) -> None:
        kernel_size = (kernel, kernel) if isinstance(kernel, int) else kernel
        pad = (kernel_size[0] // 2, kernel_size[1] // 2) if padding is None else (padding, padding)
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel_size, stride=stride, padding=pad, bias=bias)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)


class Branches(nn.Module):
    """Branches over the same feature map, concatenated by channel: [B, C, H, W] to [B, sum of their widths, h, w].

    Args:
        branches: named branch0, branch1, ...
        named: further branches with their own names, after the others.
        gate_width: total output channels of the branches, to scale the result by squeeze and excitation; 0: no scaling.
    """

    def __init__(self, *branches: nn.Module, gate_width: int = 0, **named: nn.Module) -> None:
        super().__init__()
        named = {**{f"branch{index}": branch for index, branch in enumerate(branches)}, **named}
        self.branch_names = tuple(named)
        for name, branch in named.items():
            self.add_module(name, branch)
        self.se_module = SqueezeExcite(gate_width) if gate_width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([getattr(self, name)(x) for name in self.branch_names], dim=1)
        out: Tensor = self.se_module(joined)
        return out
