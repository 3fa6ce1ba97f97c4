"""BN-Inception, or Inception v2: GoogLeNet with batch norm and 3x3 convolutions.

Ioffe, Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
section 4.2 and figure 5 (the table of the appendix). 11,295,240 parameters for 1000 classes. Errors of the paper with
one net and one crop (figure 4), top-1/top-5: 25.2/7.82.

The table is inconsistent: the widths in its rows 4c, 4d and 4e sum to 608, 608 and 1056 channels, but it lists maps
of 576, 576 and 1024. We use the widths, as common implementations do. Other choices of ours: every convolution has a
bias before its norm, which the count includes; the first convolution is a plain one (the paper's is depthwise
separable); padding by one at stride 2, so that maps are 112, 56, 28, 14 and 7 pixels; no auxiliary heads and no
dropout, which batch norm makes unnecessary.

`squeeze_excite=True` adds a gate to the end of each module: the SE-BN-Inception of Hu et al. 2017, table 2.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn

from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.layers.branches import Branches, Convolution
from model_defs.layers.pooled_map import PooledMap, refuse_smaller


class Widths(NamedTuple):
    """Channels of the branches of a module: a row of the table, in its order.

    Attributes:
        one: 1x1; 0 in modules that halve the map.
        before_three, three: 1x1, then 3x3.
        before_double, double: 1x1, then each of two 3x3.
        pool, after_pool: kind of the pool, then 1x1; 0 in modules that halve the map.
    """

    one: int
    before_three: int
    three: int
    before_double: int
    double: int
    pool: Literal["mean", "max"]
    after_pool: int

    def out_channels(self, channels: int) -> int:
        """Channels of the module's output, the concatenated branches, for an input of `channels`."""
        return self.one + self.three + self.double + (self.after_pool or channels)


MODULES = {
    "3a": Widths(64, 64, 64, 64, 96, "mean", 32),
    "3b": Widths(64, 64, 96, 64, 96, "mean", 64),
    "3c": Widths(0, 128, 160, 64, 96, "max", 0),
    "4a": Widths(224, 64, 96, 96, 128, "mean", 128),
    "4b": Widths(192, 96, 128, 96, 128, "mean", 128),
    "4c": Widths(160, 128, 160, 128, 160, "mean", 128),
    "4d": Widths(96, 128, 192, 160, 192, "mean", 128),
    "4e": Widths(0, 128, 192, 192, 256, "max", 0),
    "5a": Widths(352, 192, 320, 160, 224, "mean", 128),
    "5b": Widths(352, 192, 320, 192, 224, "max", 128),
}


class BNInception(PooledMap):
    """Stem, ten modules, mean, one linear layer; [B, C, H, W] to [B, K].

    Args:
        squeeze_excite: adds a gate after each module.
        dropout: rate before the head.
    """

    family = "bn_inception"
    smallest = 32
    classifier_names = ("fc",)
    first_conv_name = "conv1.conv"

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
        squeeze_excite: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        refuse_smaller(self.family, img_size, self.smallest)
        self.num_classes = num_classes
        self.img_size = img_size
        self.conv1 = Convolution(in_chans, 64, 7, stride=2, bias=True)
        self.conv2 = Convolution(64, 64, bias=True)
        self.conv3 = Convolution(64, 192, 3, bias=True)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.inception = nn.Sequential()
        channels = 192
        for name, widths in MODULES.items():
            self.inception.add_module(name, Inception(channels, widths, squeeze_excite=squeeze_excite))
            channels = widths.out_channels(channels)
        self.num_features = channels
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def last_map(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x))
        x = self.pool(self.conv3(self.conv2(x)))
        last: Tensor = self.inception(x)
        return last

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.dropout(features))
        return logits


class Inception(Branches):
    """1x1; 1x1 and 3x3; 1x1 and two 3x3; a pool and 1x1. Without `widths.one` the branches stride by 2."""

    def __init__(self, channels: int, widths: Widths, *, squeeze_excite: bool) -> None:
        stride = 1 if widths.one else 2
        branches: list[nn.Module] = [
            nn.Sequential(
                Convolution(channels, widths.before_three, bias=True),
                Convolution(widths.before_three, widths.three, 3, stride=stride, bias=True),
            ),
            nn.Sequential(
                Convolution(channels, widths.before_double, bias=True),
                Convolution(widths.before_double, widths.double, 3, bias=True),
                Convolution(widths.double, widths.double, 3, stride=stride, bias=True),
            ),
        ]
        pool = (nn.AvgPool2d if widths.pool == "mean" else nn.MaxPool2d)(3, stride=stride, padding=1)
        if stride == 1:
            branches.insert(0, Convolution(channels, widths.one, bias=True))
            branches.append(nn.Sequential(pool, Convolution(channels, widths.after_pool, bias=True)))
        else:
            branches.append(pool)
        super().__init__(*branches, gate_width=widths.out_channels(channels) if squeeze_excite else 0)


def bn_inception(
    *,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    squeeze_excite: bool = False,
    dropout: Rate = 0.0,
) -> BNInception:
    """BN-Inception for images of about `img_size` pixels (224); accepts any size from 32."""
    return BNInception(
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size or 224,
        squeeze_excite=squeeze_excite,
        dropout=dropout,
    )
