"""Inception v3.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, "Rethinking the Inception Architecture for Computer Vision", section 6
and table 1. Parameters for 1000 classes: 23,834,568, and 27,161,264 with the auxiliary head. Errors of the paper with
one net and one crop of 299 pixels (table 3, without the images that ILSVRC blacklists), top-1/top-5: 21.2/5.6.

The class and the parameter names are torchvision's, so this is the net that the authors released (table 1 differs in
the widths of its stem). The paper states no weight for its auxiliary loss; ours is from the authors' code, 0.4. The
auxiliary head is designed for a map of 17 pixels; smaller ones, where torchvision fails, are averaged to 5 x 5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import Inception3
from torchvision.models import inception as torchvision_inception

from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.auxiliary import PooledMapWithHeads
from model_defs.errors import ModelError
from model_defs.layers.pooled_map import refuse_smaller

# torchvision's layers, in the order of its forward pass; images of 299 pixels.
_TO_17_PIXELS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    *("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
)
_TO_8_PIXELS = ("Mixed_7a", "Mixed_7b", "Mixed_7c")


class InceptionV3(PooledMapWithHeads, Inception3):
    """torchvision's Inception v3 with our interface; [B, C, H, W] to [B, K].

    Args:
        num_classes: width of the heads; 0 for features, and no auxiliary head.
        auxiliary: adds a head on the last map of 17 pixels.
        transform_input: convert images from ImageNet's normalisation to mean 0.5 and std 0.5, for weights that were
            trained with the latter, such as torchvision's.
        dropout: rate before the head.
    """

    Conv2d_1a_3x3: torchvision_inception.BasicConv2d
    AuxLogits: nn.Module | None
    dropout: nn.Module
    fc: nn.Module
    _transform_input: Callable[[Tensor], Tensor]

    family = "inception_v3"
    smallest = 75
    auxiliary_weight = 0.4
    first_conv_name = "Conv2d_1a_3x3.conv"

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 299,
        auxiliary: bool = False,
        transform_input: bool = False,
        dropout: float = 0.5,
    ) -> None:
        refuse_smaller(self.family, img_size, self.smallest)
        if transform_input and in_chans != 3:
            raise ModelError(f"{self.family}: transform_input is for images of 3 channels, not {in_chans}")
        with_head = auxiliary and num_classes > 0
        super().__init__(
            num_classes=max(1, num_classes),
            aux_logits=with_head,
            transform_input=transform_input,
            inception_blocks=[
                torchvision_inception.BasicConv2d,
                torchvision_inception.InceptionA,
                torchvision_inception.InceptionB,
                torchvision_inception.InceptionC,
                torchvision_inception.InceptionD,
                torchvision_inception.InceptionE,
                AuxiliaryHead,
            ],
            init_weights=True,
            dropout=dropout,
        )
        self.num_classes = num_classes
        self.num_features = 2048
        self.img_size = img_size
        self.classifier_names = ("fc", "AuxLogits.fc") if with_head else ("fc",)
        if in_chans != 3:
            self.Conv2d_1a_3x3.conv = nn.Conv2d(in_chans, 32, 3, stride=2, bias=False)
            nn.init.trunc_normal_(self.Conv2d_1a_3x3.conv.weight, std=0.1)
        if not num_classes:
            self.fc = nn.Identity()

    def auxiliary_heads(self) -> tuple[nn.Module, ...]:
        return () if self.AuxLogits is None else (self.AuxLogits,)

    def all_maps(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        middle = self._apply_layers(_TO_17_PIXELS, self._transform_input(x))
        return (middle,), self._apply_layers(_TO_8_PIXELS, middle)

    def _apply_layers(self, layers: tuple[str, ...], x: Tensor) -> Tensor:
        for name in layers:
            x = getattr(self, name)(x)
        return x

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.dropout(features))
        return logits


class AuxiliaryHead(torchvision_inception.InceptionAux):
    """torchvision's auxiliary head, also for maps that are too small for its 5x5 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 5, stride=3) if min(x.shape[-2:]) >= 17 else F.adaptive_avg_pool2d(x, 5)
        x = self.conv1(self.conv0(x))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def inception_v3(
    *,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    auxiliary: bool = False,
    transform_input: bool = False,
    dropout: Rate = 0.5,
) -> InceptionV3:
    """Inception v3 for images of about `img_size` pixels (299); accepts any size from 75."""
    return InceptionV3(
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size or 299,
        auxiliary=auxiliary,
        transform_input=transform_input,
        dropout=dropout,
    )
