"""Residual networks.

He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", section 3.3 and table 1. Errors of the
paper are top-1/top-5 with ten crops (table 3; ResNet-18: top-1 from table 2, with padding instead of projection
shortcuts). With many scales (table 4) ResNet-152 has 19.38/4.49.

                parameters (1000 classes)  error
    ResNet-18                  11,689,512  27.88
    ResNet-34                  21,797,672  24.52/7.46
    ResNet-50                  25,557,032  22.85/6.71
    ResNet-101                 44,549,160  21.75/6.05
    ResNet-152                 60,192,808  21.43/5.71

ResNet-18 to 152 are torchvision's class (stride on the 3x3 convolution of a bottleneck, not on its first 1x1 as in the
nets that the authors released), with its parameter names. `squeeze_excite=True` adds a gate to the end of each block,
before the shortcut is added (see senet.py for the released nets of that kind). `resnet_small` is our own, for images of
28 to 64 pixels: the same basic blocks after a stem of 3x3 convolutions, narrow and soon reduced to 14 or 16 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from model_defs.arguments import Channels, Classes, Depth, Side, Width
from model_defs.errors import ModelError
from model_defs.layers.pooled_map import PooledMap, refuse_smaller
from model_defs.layers.squeeze_excite import SqueezeExcite

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(PooledMap, torchvision_resnet.ResNet):
    """torchvision's ResNet, for any number of channels and with access to its features.

    Args:
        layers: 18, 34, 50, 101 or 152.
        num_classes: width of the head; 0 for features.
        groups, width_per_group: of the 3x3 convolution of a bottleneck; 32 and 4 give a ResNeXt.
        squeeze_excite: adds a squeeze-and-excitation gate to each block.
    """

    conv1: nn.Conv2d
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential
    fc: nn.Module

    family = "resnet"
    smallest = 32
    classifier_names = ("fc",)
    first_conv_name = "conv1"

    def __init__(
        self,
        layers: int,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
        groups: int = 1,
        width_per_group: int = 64,
        squeeze_excite: bool = False,
    ) -> None:
        refuse_smaller(self.family, img_size, self.smallest)
        if layers < 50:
            block = GatedBasicBlock if squeeze_excite else torchvision_resnet.BasicBlock
        else:
            block = GatedBottleneck if squeeze_excite else torchvision_resnet.Bottleneck
        super().__init__(
            block, list(LAYERS[layers]), num_classes=max(1, num_classes), groups=groups, width_per_group=width_per_group
        )
        self.num_classes = num_classes
        self.num_features = 512 * block.expansion
        self.img_size = img_size
        if in_chans != 3:
            self.conv1 = nn.Conv2d(in_chans, 64, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if not num_classes:
            self.fc = nn.Identity()

    def last_map(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        last: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return last

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits


class GatedBasicBlock(torchvision_resnet.BasicBlock):
    """Two 3x3 convolutions, a gate, the shortcut."""

    def __init__(self, inplanes: int, planes: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(inplanes, planes, *args, **kwargs)
        self.se_module = SqueezeExcite(planes * self.expansion)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.se_module(self.bn2(self.conv2(x)))
        out: Tensor = self.relu(x + shortcut)
        return out


class GatedBottleneck(torchvision_resnet.Bottleneck):
    """1x1, 3x3 and 1x1 convolutions, a gate, the shortcut."""

    def __init__(self, inplanes: int, planes: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(inplanes, planes, *args, **kwargs)
        self.se_module = SqueezeExcite(planes * self.expansion)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.se_module(self.bn3(self.conv3(x)))
        out: Tensor = self.relu(x + shortcut)
        return out


class SmallResNet(PooledMap):
    """Basic blocks for small images, fast on a CPU; [B, C, H, W] to [B, K].

    Args:
        widths: channels of each stage; each stage except the first halves the map.
        depths: number of basic blocks of each stage.
        stem_stride: 2 or 4; the first stage has maps of 1/2 or 1/4 of the image's side.
    """

    family = "resnet_small"
    classifier_names = ("fc",)
    first_conv_name = "stem.0"

    def __init__(
        self,
        *,
        widths: Sequence[int],
        depths: Sequence[int],
        stem_stride: int,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 64,
    ) -> None:
        super().__init__()
        if not widths or len(widths) != len(depths):
            raise ModelError(
                f"resnet_small: {len(widths)} widths and {len(depths)} depths; each stage needs one of each"
            )
        if stem_stride not in (2, 4):
            raise ModelError(f"resnet_small: stem_stride must be 2 or 4, not {stem_stride}")
        self.smallest = stem_stride * 2 ** (len(widths) - 1)
        refuse_smaller(self.family, img_size, self.smallest)
        self.num_classes = num_classes
        self.num_features = widths[-1]
        self.img_size = img_size
        narrow = max(1, widths[0] // 2)
        self.stem = nn.Sequential(
            *_convolution(in_chans, narrow, stride=2), *_convolution(narrow, widths[0], stride=stem_stride // 2)
        )
        self.stages = nn.Sequential()
        channels = widths[0]
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            self.stages.append(_stage(channels, width, depth, stride=1 if index == 0 else 2))
            channels = width
        self.fc = nn.Linear(channels, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def last_map(self, x: Tensor) -> Tensor:
        last: Tensor = self.stages(self.stem(x))
        return last

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits


def _convolution(channels: int, width: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]


def _stage(channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
    if depth < 1:
        raise ModelError(f"resnet_small: a stage needs at least one block, not {depth}")
    shortcut = None
    if stride != 1 or channels != width:
        shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    blocks = [torchvision_resnet.BasicBlock(channels, width, stride, shortcut)]
    blocks += [torchvision_resnet.BasicBlock(width, width) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def resnet(
    *,
    layers: int,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    squeeze_excite: bool = False,
) -> ResNet:
    """ResNet-`layers` for images of about `img_size` pixels (224); accepts any size from 32."""
    return ResNet(
        layers,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size or 224,
        squeeze_excite=squeeze_excite,
    )


def resnet_small(
    *,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    widths: Sequence[Width] = (32, 64, 128, 256),
    depths: Sequence[Depth] = (1, 2, 2, 1),
    stem_stride: Literal[2, 4] | None = None,
) -> SmallResNet:
    """A ResNet for images of `img_size` pixels (64); the stem's stride is 4, or 2 below 48 pixels.

    2 cores of an AMD EPYC, float32, 64 pixels, batch 64, forward and backward: 960 images/s, and
    1,100 in channels_last; with depths (2, 2, 2, 2) 670 and 780.
    """
    side = img_size or 64
    return SmallResNet(
        widths=widths,
        depths=depths,
        stem_stride=stem_stride or (4 if side >= 48 else 2),
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=side,
    )
