"""Inception v4.

Szegedy, Ioffe, Vanhoucke, Alemi 2016, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning", section 3.1, figures 3 to 9. 42,679,816 parameters for 1000 classes. Errors of the paper with one net and one
crop of 299 pixels (table 2, without the images that ILSVRC blacklists), top-1/top-5: 20.0/5.0.

Parameter names are timm's, so the released weights load unchanged; they were trained with mean 0.5 and std 0.5
in each channel. `squeeze_excite=True` adds a gate to the end of each module after the stem (Hu et al. 2017, figure 2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.layers.branches import Branches, Convolution
from model_defs.layers.pooled_map import PooledMap, refuse_smaller
from model_defs.layers.squeeze_excite import SqueezeExcite


class InceptionV4(PooledMap):
    """Stem, 4 modules A, 7 B and 3 C with a reduction after A and B, mean, one linear layer; [B, C, H, W] to [B, K].

    Args:
        squeeze_excite: adds a gate after each module and each reduction.
        dropout: rate before the head.
    """

    family = "inception_v4"
    smallest = 75
    classifier_names = ("last_linear",)
    first_conv_name = "features.0.conv"

    def __init__(
        self,
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
        self.num_features = 1536
        self.img_size = img_size
        gates = {"squeeze_excite": squeeze_excite}
        self.features = nn.Sequential(
            Convolution(in_chans, 32, 3, stride=2, padding=0),
            Convolution(32, 32, 3, padding=0),
            Convolution(32, 64, 3),
            *(Stem1(), Stem2(), Stem3()),
            *(InceptionA(**gates) for _ in range(4)),
            ReductionA(**gates),
            *(InceptionB(**gates) for _ in range(7)),
            ReductionB(**gates),
            *(InceptionC(**gates) for _ in range(3)),
        )
        self.dropout = nn.Dropout(dropout)
        self.last_linear = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def last_map(self, x: Tensor) -> Tensor:
        last: Tensor = self.features(x)
        return last

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.last_linear(self.dropout(features))
        return logits


class Stem1(Branches):
    """64 to 160 channels, half the height and width (figure 3, the first concatenation)."""

    def __init__(self) -> None:
        super().__init__(maxpool=nn.MaxPool2d(3, stride=2), conv=Convolution(64, 96, 3, stride=2, padding=0))


class Stem2(Branches):
    """160 to 192 channels, height and width less by 2 (figure 3, the second concatenation)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(Convolution(160, 64), Convolution(64, 96, 3, padding=0)),
            nn.Sequential(
                Convolution(160, 64),
                Convolution(64, 64, (1, 7)),
                Convolution(64, 64, (7, 1)),
                Convolution(64, 96, 3, padding=0),
            ),
        )


class Stem3(Branches):
    """192 to 384 channels, half the height and width (figure 3, the third concatenation)."""

    def __init__(self) -> None:
        super().__init__(conv=Convolution(192, 192, 3, stride=2, padding=0), maxpool=nn.MaxPool2d(3, stride=2))


class InceptionA(Branches):
    """384 channels, 35 x 35 (figure 4)."""

    def __init__(self, *, squeeze_excite: bool) -> None:
        super().__init__(
            Convolution(384, 96),
            nn.Sequential(Convolution(384, 64), Convolution(64, 96, 3)),
            nn.Sequential(Convolution(384, 64), Convolution(64, 96, 3), Convolution(96, 96, 3)),
            nn.Sequential(_mean_of_neighbours(), Convolution(384, 96)),
            gate_width=384 if squeeze_excite else 0,
        )


class ReductionA(Branches):
    """384 to 1024 channels, 35 x 35 to 17 x 17 (figure 7 with k, l, m, n = 192, 224, 256, 384)."""

    def __init__(self, *, squeeze_excite: bool) -> None:
        super().__init__(
            Convolution(384, 384, 3, stride=2, padding=0),
            nn.Sequential(
                Convolution(384, 192), Convolution(192, 224, 3), Convolution(224, 256, 3, stride=2, padding=0)
            ),
            nn.MaxPool2d(3, stride=2),
            gate_width=1024 if squeeze_excite else 0,
        )


class InceptionB(Branches):
    """1024 channels, 17 x 17 (figure 5)."""

    def __init__(self, *, squeeze_excite: bool) -> None:
        super().__init__(
            Convolution(1024, 384),
            nn.Sequential(Convolution(1024, 192), Convolution(192, 224, (1, 7)), Convolution(224, 256, (7, 1))),
            nn.Sequential(
                Convolution(1024, 192),
                Convolution(192, 192, (7, 1)),
                Convolution(192, 224, (1, 7)),
                Convolution(224, 224, (7, 1)),
                Convolution(224, 256, (1, 7)),
            ),
            nn.Sequential(_mean_of_neighbours(), Convolution(1024, 128)),
            gate_width=1024 if squeeze_excite else 0,
        )


class ReductionB(Branches):
    """1024 to 1536 channels, 17 x 17 to 8 x 8 (figure 8)."""

    def __init__(self, *, squeeze_excite: bool) -> None:
        super().__init__(
            nn.Sequential(Convolution(1024, 192), Convolution(192, 192, 3, stride=2, padding=0)),
            nn.Sequential(
                Convolution(1024, 256),
                Convolution(256, 256, (1, 7)),
                Convolution(256, 320, (7, 1)),
                Convolution(320, 320, 3, stride=2, padding=0),
            ),
            nn.MaxPool2d(3, stride=2),
            gate_width=1536 if squeeze_excite else 0,
        )


class InceptionC(nn.Module):
    """1536 channels, 8 x 8; two of the four branches fork at their ends (figure 6)."""

    def __init__(self, *, squeeze_excite: bool) -> None:
        super().__init__()
        self.branch0 = Convolution(1536, 256)
        self.branch1_0 = Convolution(1536, 384)
        self.branch1_1a = Convolution(384, 256, (1, 3))
        self.branch1_1b = Convolution(384, 256, (3, 1))
        self.branch2_0 = Convolution(1536, 384)
        self.branch2_1 = Convolution(384, 448, (3, 1))
        self.branch2_2 = Convolution(448, 512, (1, 3))
        self.branch2_3a = Convolution(512, 256, (1, 3))
        self.branch2_3b = Convolution(512, 256, (3, 1))
        self.branch3 = nn.Sequential(_mean_of_neighbours(), Convolution(1536, 256))
        self.se_module = SqueezeExcite(1536) if squeeze_excite else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch1_0(x)
        thrice = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        joined = torch.cat(
            [
                self.branch0(x),
                self.branch1_1a(once),
                self.branch1_1b(once),
                self.branch2_3a(thrice),
                self.branch2_3b(thrice),
                self.branch3(x),
            ],
            dim=1,
        )
        out: Tensor = self.se_module(joined)
        return out


def _mean_of_neighbours() -> nn.AvgPool2d:
    """A 3x3 mean that excludes padding at the edges, as in the released nets."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def inception_v4(
    *,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    squeeze_excite: bool = False,
    dropout: Rate = 0.2,
) -> InceptionV4:
    """Inception v4 for images of about `img_size` pixels (299); accepts any size from 75."""
    return InceptionV4(
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size or 299,
        squeeze_excite=squeeze_excite,
        dropout=dropout,
    )
