"""Squeeze and excitation: each channel of a map is scaled by a function of the whole map.

Hu, Shen, Sun 2017, "Squeeze-and-Excitation Networks", section 3 (equations 2 to 4), reduction 16. The two dense
layers are 1x1 convolutions with biases, named as in timm's SENet. 2 C^2 / r + C / r + C parameters.
"""

from __future__ import annotations

from torch import Tensor, nn

from model_defs.errors import ModelError


class SqueezeExcite(nn.Module):
    """Mean over the map, C to C/r, ReLU, C/r to C, sigmoid, times the map; [B, C, H, W] to [B, C, H, W].

    Args:
        channels: C of the map.
        reduction: r; the hidden layer has at least one channel.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ModelError(f"squeeze-excite: channels and reduction must be 1 or more, not {channels}, {reduction}")
        middle = max(1, channels // reduction)
        self.fc1 = nn.Conv2d(channels, middle, kernel_size=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(middle, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates(x)

    def gates(self, x: Tensor) -> Tensor:
        """The scale of each channel, in (0, 1), [B, C, 1, 1]."""
        squeezed = x.mean(dim=(2, 3), keepdim=True)
        excited: Tensor = self.fc2(self.relu(self.fc1(squeezed)))
        return excited.sigmoid()
