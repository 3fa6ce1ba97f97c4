"""Unmodified nets of torchvision: EfficientNet and RegNet.

Tan, Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", section 4 and table 1;
Tan, Le 2021, "EfficientNetV2: Smaller Models and Faster Training", section 3; Radosavovic et al. 2020, "Designing
Network Design Spaces", sections 3 and 4. Parameter counts and the papers' errors are in the catalogue, one row per net.
EfficientNet's are from arXiv v4 and later; the paper of 2019 reports 0.3 to 0.8 points more for B0 to B5.

Each class uses the layers of torchvision's net, so parameter names are torchvision's and its weights load
unchanged. RegNet-Y 16 GF is DeiT's teacher (Touvron et al. 2020, section 5).
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import regnet as torchvision_regnet

from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.layers.pooled_map import PooledMap, refuse_smaller

# Blocks, w_0, w_a, w_m of equations 2 to 4, and channels per group, from the paper's tables of the best nets.
REGNETS = {
    "regnet_x_400mf": (22, 24, 24.48, 2.54, 16),
    "regnet_x_800mf": (16, 56, 35.73, 2.28, 16),
    "regnet_x_1_6gf": (18, 80, 34.01, 2.25, 24),
    "regnet_x_3_2gf": (25, 88, 26.31, 2.25, 48),
    "regnet_x_8gf": (23, 80, 49.56, 2.88, 120),
    "regnet_x_16gf": (22, 216, 55.59, 2.1, 128),
    "regnet_x_32gf": (23, 320, 69.86, 2.0, 168),
    "regnet_y_400mf": (16, 48, 27.89, 2.09, 8),
    "regnet_y_800mf": (14, 56, 38.84, 2.4, 16),
    "regnet_y_1_6gf": (27, 48, 20.71, 2.65, 24),
    "regnet_y_3_2gf": (21, 80, 42.63, 2.66, 24),
    "regnet_y_8gf": (17, 192, 76.82, 2.19, 56),
    "regnet_y_16gf": (18, 200, 106.23, 2.48, 112),
    "regnet_y_32gf": (20, 232, 115.89, 2.53, 232),
}


class EfficientNet(PooledMap):
    """torchvision's EfficientNet `variant`; [B, C, H, W] to [B, K].

    Args:
        variant: torchvision's name, e.g. "efficientnet_b0".
        drop_path: stochastic depth of the last block, in [0, 1).
        dropout: rate before the head; None is the variant's default.
    """

    family = "efficientnet"
    smallest = 32
    classifier_names = ("classifier.1",)
    first_conv_name = "features.0.0"

    def __init__(
        self,
        variant: str,
        *,
        img_size: int,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_path: float = 0.2,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        refuse_smaller(self.family, img_size, self.smallest)
        dropout_kwargs = {} if dropout is None else {"dropout": dropout}
        net = torchvision.models.get_model(
            variant, weights=None, num_classes=max(1, num_classes), stochastic_depth_prob=drop_path, **dropout_kwargs
        )
        self.features = net.features
        self.classifier = net.classifier
        self.num_classes = num_classes
        self.num_features = net.classifier[1].in_features
        self.img_size = img_size
        if in_chans != 3:
            self.features[0][0] = _first_convolution(in_chans, self.features[0][0].out_channels)
        if not num_classes:
            self.classifier[1] = nn.Identity()

    def last_map(self, x: Tensor) -> Tensor:
        last: Tensor = self.features(x)
        return last

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(features)
        return logits


class RegNet(PooledMap, torchvision_regnet.RegNet):
    """torchvision's RegNet for a row of REGNETS; [B, C, H, W] to [B, K]."""

    stem: nn.Sequential
    trunk_output: nn.Sequential
    fc: nn.Module

    family = "regnet"
    smallest = 32
    classifier_names = ("fc",)
    first_conv_name = "stem.0"

    def __init__(self, variant: str, *, img_size: int, num_classes: int = 1000, in_chans: int = 3) -> None:
        refuse_smaller(self.family, img_size, self.smallest)
        depth, w_0, w_a, w_m, group_width = REGNETS[variant]
        with torch.device("cpu"):  # it computes widths with tensors, which have no values on the meta device
            params = torchvision_regnet.BlockParams.from_init_params(
                depth, w_0, w_a, w_m, group_width, se_ratio=0.25 if variant.startswith("regnet_y") else None
            )
        super().__init__(params, num_classes=max(1, num_classes))
        self.num_classes = num_classes
        self.num_features = params.widths[-1]
        self.img_size = img_size
        if in_chans != 3:
            self.stem[0] = _first_convolution(in_chans, 32)
        if not num_classes:
            self.fc = nn.Identity()

    def last_map(self, x: Tensor) -> Tensor:
        last: Tensor = self.trunk_output(self.stem(x))
        return last

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits


def _first_convolution(in_chans: int, width: int) -> nn.Conv2d:
    """The first convolution of both families for other than 3 channels, initialised by fan-out like the original."""
    convolution = nn.Conv2d(in_chans, width, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def efficientnet(
    *,
    variant: str,
    side: Side,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    drop_path: Rate = 0.2,
    dropout: Rate | None = None,
) -> EfficientNet:
    """An EfficientNet for images of about `img_size` pixels (`side`); accepts any size from 32."""
    return EfficientNet(
        variant,
        img_size=img_size or side,
        num_classes=num_classes,
        in_chans=in_chans,
        drop_path=drop_path,
        dropout=dropout,
    )


def regnet(
    *, variant: str, num_classes: Classes = 1000, in_chans: Channels = 3, img_size: Side | None = None
) -> RegNet:
    """A RegNet for images of about `img_size` pixels (224); accepts any size from 32."""
    return RegNet(variant, img_size=img_size or 224, num_classes=num_classes, in_chans=in_chans)
