"""SENet: residual networks with squeeze and excitation, as released.

Hu, Shen, Albanie, Sun, Wu 2017, "Squeeze-and-Excitation Networks" (last arXiv version), section 3 and table 1;
SENet-154 is a model of the authors' ILSVRC 2017 entry (section 5.4). Errors are top-1/top-5 with one crop of 224
pixels, in the paper (table 2; SENet-154: table 8), and as the authors report for the released weights, which come from
a longer training:

                           parameters (1000 classes)  paper       released
    SE-ResNet-50                          28,088,024  23.29/6.62  22.37/6.36
    SE-ResNet-101                         49,326,872  22.38/6.07  21.75/5.72
    SE-ResNet-152                         66,821,848  21.57/5.73  21.34/5.54
    SE-ResNeXt-50 (32x4d)                 27,559,896  21.10/5.49  20.97/5.54
    SE-ResNeXt-101 (32x4d)                48,955,416  20.70/5.01  19.81/4.96
    SENet-154                            115,088,984  18.68/4.47  18.68/4.47

As in the authors' Caffe nets: SE-ResNets stride on the first 1x1 convolution of a bottleneck (as in the released
ResNets, unlike torchvision), and the stem's max-pooling pads at its end only. SENet-154 is a ResNeXt-152 of 64 groups
with half as many channels in the first 1x1, three 3x3 convolutions in its stem, 3x3 shortcuts and dropout of 0.2
before the head. Parameter names match timm's `legacy_se*`, so its weights load unchanged; timm has dropout of 0.2 in
all of them, we only in SENet-154.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from model_defs.arguments import Channels, Classes, Side
from model_defs.layers.pooled_map import PooledMap, refuse_smaller
from model_defs.layers.squeeze_excite import SqueezeExcite

_EXPANSION = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """The differences between the nets.

    Attributes:
        depths: number of blocks of each stage.
        widths: channels of the first 1x1 and of the 3x3 convolution, in multiples of the stage's 64, 128, 256, 512.
        groups: groups of the 3x3 convolution.
        stride_first: the stride of a block is on its first 1x1 convolution, not on its 3x3.
        stem: channels of each 3x3 convolution before the first stage; empty means one of 7x7 with 64.
        shortcut_kernel: side of the convolution in a shortcut with stride.
        dropout: rate before the head.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int] = (1, 1)
    groups: int = 1
    stride_first: bool = False
    stem: tuple[int, ...] = ()
    shortcut_kernel: int = 1
    dropout: float = 0.0


LAYOUTS = {
    "seresnet50": Layout((3, 4, 6, 3), stride_first=True),
    "seresnet101": Layout((3, 4, 23, 3), stride_first=True),
    "seresnet152": Layout((3, 8, 36, 3), stride_first=True),
    "seresnext50_32x4d": Layout((3, 4, 6, 3), widths=(2, 2), groups=32),
    "seresnext101_32x4d": Layout((3, 4, 23, 3), widths=(2, 2), groups=32),
    "senet154": Layout(
        (3, 8, 36, 3), widths=(2, 4), groups=64, stem=(64, 64, 128), shortcut_kernel=3, dropout=0.2
    ),
}  # fmt: skip


class SENet(PooledMap):
    """Stem, four stages of bottlenecks with gates, mean, one linear layer; [B, C, H, W] to [B, K]."""

    family = "senet"
    smallest = 32
    classifier_names = ("last_linear",)
    first_conv_name = "layer0.conv1"

    def __init__(self, layout: Layout, *, num_classes: int = 1000, in_chans: int = 3, img_size: int = 224) -> None:
        super().__init__()
        refuse_smaller(self.family, img_size, self.smallest)
        self.num_classes = num_classes
        self.num_features = 512 * _EXPANSION
        self.img_size = img_size
        self.layer0 = _stem(in_chans, layout.stem)
        self.pool0 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = layout.stem[-1] if layout.stem else 64
        self.layer1 = _stage(channels, 64, layout.depths[0], layout, stride=1)
        self.layer2 = _stage(256, 128, layout.depths[1], layout, stride=2)
        self.layer3 = _stage(512, 256, layout.depths[2], layout, stride=2)
        self.layer4 = _stage(1024, 512, layout.depths[3], layout, stride=2)
        self.dropout = nn.Dropout(layout.dropout)
        self.last_linear = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def last_map(self, x: Tensor) -> Tensor:
        x = self.pool0(self.layer0(x))
        last: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return last

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.last_linear(self.dropout(features))
        return logits


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions, a gate, the shortcut."""

    def __init__(self, channels: int, planes: int, layout: Layout, *, stride: int = 1) -> None:
        super().__init__()
        first, middle = (multiple * planes for multiple in layout.widths)
        out = _EXPANSION * planes
        stride1, stride2 = (stride, 1) if layout.stride_first else (1, stride)
        self.conv1 = nn.Conv2d(channels, first, 1, stride=stride1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, middle, 3, stride=stride2, padding=1, groups=layout.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.se_module = SqueezeExcite(out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            kernel = layout.shortcut_kernel if stride != 1 else 1
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.se_module(self.bn3(self.conv3(x)))
        x += shortcut
        out: Tensor = self.relu(x)
        return out


def _stem(in_chans: int, widths: tuple[int, ...]) -> nn.Sequential:
    stem = nn.Sequential()
    for index, width in enumerate(widths or (64,)):
        stride = 2 if index == 0 else 1
        kernel = 3 if widths else 7
        convolution = nn.Conv2d(in_chans, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        stem.add_module(f"conv{index + 1}", convolution)
        stem.add_module(f"bn{index + 1}", nn.BatchNorm2d(width))
        stem.add_module(f"relu{index + 1}", nn.ReLU(inplace=True))
        in_chans = width
    return stem


def _stage(channels: int, planes: int, depth: int, layout: Layout, *, stride: int) -> nn.Sequential:
    blocks = [Bottleneck(channels, planes, layout, stride=stride)]
    blocks += [Bottleneck(_EXPANSION * planes, planes, layout) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def senet(*, variant: str, num_classes: Classes = 1000, in_chans: Channels = 3, img_size: Side | None = None) -> SENet:
    """One of LAYOUTS for images of about `img_size` pixels (224); accepts any size from 32."""
    return SENet(LAYOUTS[variant], num_classes=num_classes, in_chans=in_chans, img_size=img_size or 224)
