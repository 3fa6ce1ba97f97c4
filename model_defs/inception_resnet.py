"""Inception-ResNet v1 and v2.

Szegedy, Ioffe, Vanhoucke, Alemi 2016, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning", sections 3.2 and 3.3, figures 10 to 19. Parameters for 1000 classes: v1 22,756,328; v2 55,843,464. Errors of
the paper with one net and one crop of 299 pixels (table 2, without the images that ILSVRC blacklists), top-1/top-5:
v1 21.3/5.5, v2 19.9/4.9.

v1 is the paper's net. v2 is the net that the authors released, with timm's parameter names, so its weights load
unchanged; they were trained with mean 0.5 and std 0.5 in each channel. It is not the paper's v2: it has the stem
of Inception v3 and one of its modules (320 channels) instead of the stem of Inception v4 (384), hence maps of 1088 and
2080 channels instead of 1152 and 2144; 10, 20 and 10 blocks instead of 5, 10 and 5, the last without its ReLU; and a
convolution to 1536 channels at the end. Residuals are scaled by the released net's 0.17, 0.10 and 0.20 (1 in its last
block) in both; the paper says 0.1 to 0.3.
`squeeze_excite=True` gates each residual before the shortcut is added (Hu et al. 2017, figure 3), and each reduction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.layers.branches import Branches, Convolution
from model_defs.layers.pooled_map import PooledMap, refuse_smaller
from model_defs.layers.squeeze_excite import SqueezeExcite

Widths = tuple[tuple[int, ...], ...]  # of the convolutions of each branch
Kernels = tuple[int | tuple[int, int], ...]  # of the convolutions after the first, which is 1x1


@dataclass(frozen=True, slots=True)
class Layout:
    """The differences between the two nets.

    Attributes:
        released: use stem, last block and last convolution of the released v2.
        depths: number of blocks A, B and C; the released net has one more C at its end.
        channels: channels of the maps of these blocks.
        block_a, block_b, block_c, reduction_a, reduction_b: widths of their branches; a reduction also has a pool.
    """

    released: bool
    depths: tuple[int, int, int]
    channels: tuple[int, int, int]
    block_a: Widths
    reduction_a: Widths
    block_b: Widths
    reduction_b: Widths
    block_c: Widths


LAYOUTS = {
    "inception_resnet_v1": Layout(
        released=False,
        depths=(5, 10, 5),
        channels=(256, 896, 1792),
        block_a=((32,), (32, 32), (32, 32, 32)),
        reduction_a=((384,), (192, 192, 256)),
        block_b=((128,), (128, 128, 128)),
        reduction_b=((256, 384), (256, 256), (256, 256, 256)),
        block_c=((192,), (192, 192, 192)),
    ),
    "inception_resnet_v2": Layout(
        released=True,
        depths=(10, 20, 9),
        channels=(320, 1088, 2080),
        block_a=((32,), (32, 32), (32, 48, 64)),
        reduction_a=((384,), (256, 256, 384)),
        block_b=((192,), (128, 160, 192)),
        reduction_b=((256, 384), (256, 288), (256, 288, 320)),
        block_c=((192,), (192, 224, 256)),
    ),
}


class InceptionResNet(PooledMap):
    """Stem, blocks A, B and C with a reduction after A and B, mean, one linear layer; [B, C, H, W] to [B, K].

    Args:
        squeeze_excite: adds a gate in each block and after each reduction.
        dropout: rate before the head.
    """

    family = "inception_resnet"
    smallest = 75
    classifier_names = ("classif",)
    first_conv_name = "conv2d_1a.conv"

    def __init__(
        self,
        layout: Layout,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 299,
        squeeze_excite: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        refuse_smaller(self.family, img_size, self.smallest)
        self.num_classes = num_classes
        self.img_size = img_size
        a, b, c = layout.channels
        self.conv2d_1a = Convolution(in_chans, 32, 3, stride=2, padding=0)
        self.conv2d_2a = Convolution(32, 32, 3, padding=0)
        self.conv2d_2b = Convolution(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = Convolution(64, 80)
        self.conv2d_4a = Convolution(80, 192, 3, padding=0)
        self.stem_end = nn.Identity() if layout.released else Convolution(192, a, 3, stride=2, padding=0)
        self.maxpool_5a = nn.MaxPool2d(3, stride=2) if layout.released else nn.Identity()
        self.mixed_5b = InceptionV3Module() if layout.released else nn.Identity()
        self.repeat = _blocks(layout.depths[0], a, layout.block_a, (3, 3), 0.17, squeeze_excite)
        self.mixed_6a = Reduction(a, layout.reduction_a, b if squeeze_excite else 0)
        self.repeat_1 = _blocks(layout.depths[1], b, layout.block_b, ((1, 7), (7, 1)), 0.10, squeeze_excite)
        self.mixed_7a = Reduction(b, layout.reduction_b, c if squeeze_excite else 0)
        self.repeat_2 = _blocks(layout.depths[2], c, layout.block_c, ((1, 3), (3, 1)), 0.20, squeeze_excite)
        self.block8: nn.Module = nn.Identity()
        self.conv2d_7b: nn.Module = nn.Identity()
        self.num_features = c
        if layout.released:
            self.block8 = Block(c, layout.block_c, ((1, 3), (3, 1)), 1.0, squeeze_excite, relu=False)
            self.num_features = 1536
            self.conv2d_7b = Convolution(c, self.num_features)
        self.dropout = nn.Dropout(dropout)
        self.classif = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def last_map(self, x: Tensor) -> Tensor:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x)))
        x = self.mixed_5b(self.maxpool_5a(self.stem_end(x)))
        x = self.mixed_6a(self.repeat(x))
        x = self.mixed_7a(self.repeat_1(x))
        last: Tensor = self.conv2d_7b(self.block8(self.repeat_2(x)))
        return last

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classif(self.dropout(features))
        return logits


class Block(Branches):
    """x + scale * (the branches, concatenated and projected to the width of x by a 1x1 convolution), then ReLU.

    Args:
        widths: widths of the convolutions of each branch; the first convolution is 1x1.
        kernels: kernels of the convolutions after the first.
    """

    def __init__(
        self, channels: int, widths: Widths, kernels: Kernels, scale: float, squeeze_excite: bool, *, relu: bool = True
    ) -> None:
        super().__init__(*(_branch(channels, branch, kernels) for branch in widths))
        self.conv2d = nn.Conv2d(sum(branch[-1] for branch in widths), channels, 1)
        self.gate = SqueezeExcite(channels) if squeeze_excite else nn.Identity()
        self.scale = scale
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.gate(self.conv2d(super().forward(x)))
        out: Tensor = self.relu(torch.add(x, residual, alpha=self.scale))
        return out


class Reduction(Branches):
    """Branches that end in a 3x3 convolution of stride 2, and a pool; halves the height and width.

    Args:
        widths: widths of the convolutions of each branch; the first convolution is 1x1 if it is not the last.
    """

    def __init__(self, channels: int, widths: Widths, gate_width: int) -> None:
        super().__init__(
            *(_branch(channels, branch, (3, 3), halves=True) for branch in widths),
            nn.MaxPool2d(3, stride=2),
            gate_width=gate_width,
        )


class InceptionV3Module(Branches):
    """192 to 320 channels: a module of Inception v3 with a 5x5 convolution."""

    def __init__(self) -> None:
        super().__init__(
            Convolution(192, 96),
            nn.Sequential(Convolution(192, 48), Convolution(48, 64, 5)),
            nn.Sequential(Convolution(192, 64), Convolution(64, 96, 3), Convolution(96, 96, 3)),
            nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), Convolution(192, 64)),
        )


def _blocks(
    depth: int, channels: int, widths: Widths, kernels: Kernels, scale: float, squeeze_excite: bool
) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, widths, kernels, scale, squeeze_excite) for _ in range(depth)))


def _branch(channels: int, widths: tuple[int, ...], kernels: Kernels, *, halves: bool = False) -> nn.Module:
    """A sequence of convolutions; a single one is not wrapped, as its parameter names require."""
    sides = (1, *kernels)[: len(widths)]
    convolutions = []
    for index, (width, kernel) in enumerate(zip(widths, sides, strict=True), start=1):
        if halves and index == len(widths):
            convolutions.append(Convolution(channels, width, 3, stride=2, padding=0))
        else:
            convolutions.append(Convolution(channels, width, kernel))
        channels = width
    return convolutions[0] if len(convolutions) == 1 else nn.Sequential(*convolutions)


def inception_resnet(
    *,
    variant: str,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    squeeze_excite: bool = False,
    dropout: Rate = 0.2,
) -> InceptionResNet:
    """One of LAYOUTS for images of about `img_size` pixels (299); accepts any size from 75."""
    return InceptionResNet(
        LAYOUTS[variant],
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size or 299,
        squeeze_excite=squeeze_excite,
        dropout=dropout,
    )
