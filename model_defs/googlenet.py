"""GoogLeNet, or Inception v1.

Szegedy et al. 2014, "Going Deeper with Convolutions", section 5 and table 1. Parameters for 1000 classes: 13,378,280
with its two auxiliary heads, 6,998,552 without (`auxiliary=False`). Top-5 error of the paper with one net and one
crop (table 3): 10.07; it reports no top-1.

The paper's net: 5x5 convolutions, local response normalisation, no batch norm; googlenet_torchvision.py is the variant.
Unspecified in the paper and chosen by us: the constants of the normalisation (Caffe's: n = 5, alpha = 1e-4,
beta = 0.75, k = 1), paddings that give maps of 112, 56, 28, 14 and 7 pixels, and the initialisation (He's, so that
22 layers without batch norm can be trained). Parameter names are torchvision's. `squeeze_excite=True` adds a gate to
the end of each module (Hu et al. 2017, figure 2).
"""

from __future__ import annotations

from abc import abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.auxiliary import PooledMapWithHeads
from model_defs.layers.branches import Branches
from model_defs.layers.pooled_map import refuse_smaller

# Table 1: widths of the 1x1; of the 1x1 before the 3x3, and the 3x3; the same with 5x5; of the 1x1 after the pool.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def width_of(module: str) -> int:
    """Channels after the module of this name."""
    one, _, three, _, five, pool = MODULES[module]
    return one + three + five + pool


class GoogLeNetBase(PooledMapWithHeads):
    """The common base of the paper's net and torchvision's: the modules of table 1 after a stem, and the heads.

    Attributes:
        inception3a, ..., inception5b: the modules.
        aux1, aux2: heads after 4a and 4d, or None.
        dropout, fc: from the mean of the last map to the logits.
    """

    auxiliary_weight = 0.3
    first_conv_name = "conv1.conv"
    num_features = width_of("5b")
    aux1: nn.Module | None
    aux2: nn.Module | None
    dropout: nn.Module
    fc: nn.Module

    @abstractmethod
    def stem(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the input of module 3a, [B, 192, h, w]."""

    @abstractmethod
    def pools(self) -> tuple[nn.Module, nn.Module]:
        """The layers that halve the map after 3b and after 4e."""

    def auxiliary_heads(self) -> tuple[nn.Module, ...]:
        return (self.aux1, self.aux2) if self.aux1 is not None and self.aux2 is not None else ()

    def all_maps(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        after_3b, after_4e = self.pools()
        third = self._maps("3", self.stem(x))
        fourth = self._maps("4", after_3b(third["3b"]))
        fifth = self._maps("5", after_4e(fourth["4e"]))
        return (fourth["4a"], fourth["4d"]), fifth["5b"]

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.dropout(features))
        return logits

    def _maps(self, stage: str, x: Tensor) -> dict[str, Tensor]:
        """The map after each module of stage "3", "4" or "5", by the module's name."""
        maps = {}
        for name in MODULES:
            if name.startswith(stage):
                x = maps[name] = getattr(self, f"inception{name}")(x)
        return maps


class GoogLeNet(GoogLeNetBase):
    """The paper's net; [B, C, H, W] to [B, K].

    Args:
        num_classes: width of the heads; 0 for features, and no auxiliary heads.
        auxiliary: adds heads after 4a and 4d.
        squeeze_excite: adds a gate after each module.
        dropout: rate before the head.
    """

    family = "googlenet"
    smallest = 31

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
        auxiliary: bool = True,
        squeeze_excite: bool = False,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        refuse_smaller(self.family, img_size, self.smallest)
        self.num_classes = num_classes
        self.img_size = img_size
        self.conv1 = BiasedConvolution(in_chans, 64, 7, stride=2)
        self.conv2 = BiasedConvolution(64, 64, 1)
        self.conv3 = BiasedConvolution(64, 192, 3)
        self.norm = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = 192
        for name in MODULES:
            self.add_module(f"inception{name}", _inception(name, channels, squeeze_excite))
            channels = width_of(name)
        with_heads = auxiliary and num_classes > 0
        self.aux1 = AuxiliaryHead(width_of("4a"), num_classes) if with_heads else None
        self.aux2 = AuxiliaryHead(width_of("4d"), num_classes) if with_heads else None
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.classifier_names = ("fc", "aux1.fc2", "aux2.fc2") if with_heads else ("fc",)
        for key, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _init_layer(module, is_classifier=key in self.classifier_names)

    def stem(self, x: Tensor) -> Tensor:
        x = self.norm(self.pool(self.conv1(x)))
        out: Tensor = self.pool(self.norm(self.conv3(self.conv2(x))))
        return out

    def pools(self) -> tuple[nn.Module, nn.Module]:
        return self.pool, self.pool


class LocalResponseNorm(nn.LocalResponseNorm):
    """PyTorch's, always in float32: it has no bfloat16 kernel on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float()).to(input.dtype)


class BiasedConvolution(nn.Sequential):
    """A convolution with a bias, padded to preserve the map's side at stride 1, and ReLU."""

    def __init__(self, channels: int, width: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2)
        self.relu = nn.ReLU(inplace=True)


class AuxiliaryHead(nn.Module):
    """Average pooling to 4x4, a 1x1 convolution, two dense layers; [B, C, h, w] to [B, K].

    The pooling is the paper's, 5x5 at stride 3, where that gives the 4x4 positions which the first dense layer expects:
    maps of 14 to 16 pixels, images of 209 to 256. Other maps are pooled adaptively.
    """

    def __init__(self, channels: int, num_classes: int, *, dropout: float = 0.7) -> None:
        super().__init__()
        self.conv = BiasedConvolution(channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        as_in_paper = all(14 <= side <= 16 for side in x.shape[-2:])
        x = F.avg_pool2d(x, 5, stride=3) if as_in_paper else F.adaptive_avg_pool2d(x, 4)
        x = F.relu(self.fc1(self.conv(x).flatten(1)), inplace=True)
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


def _inception(name: str, channels: int, squeeze_excite: bool) -> Branches:
    one, before_three, three, before_five, five, pool = MODULES[name]
    return Branches(
        branch1=BiasedConvolution(channels, one, 1),
        branch2=nn.Sequential(
            BiasedConvolution(channels, before_three, 1), BiasedConvolution(before_three, three, 3)
        ),
        branch3=nn.Sequential(
            BiasedConvolution(channels, before_five, 1), BiasedConvolution(before_five, five, 5)
        ),
        branch4=nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), BiasedConvolution(channels, pool, 1)
        ),
        gate_width=width_of(name) if squeeze_excite else 0,
    )  # fmt: skip


def _init_layer(layer: nn.Conv2d | nn.Linear, *, is_classifier: bool) -> None:
    """He's initialisation, which preserves the scale through ReLUs; a classifier starts with small logits."""
    if is_classifier:
        nn.init.trunc_normal_(layer.weight, std=0.01)
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def googlenet(
    *,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    auxiliary: bool = True,
    squeeze_excite: bool = False,
    dropout: Rate = 0.4,
) -> GoogLeNet:
    """The paper's GoogLeNet for images of about `img_size` pixels (224); accepts any size from 31."""
    return GoogLeNet(
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size or 224,
        auxiliary=auxiliary,
        squeeze_excite=squeeze_excite,
        dropout=dropout,
    )
