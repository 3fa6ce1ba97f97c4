"""torchvision's variant of GoogLeNet, for which trained weights are available.

Szegedy et al. 2014, "Going Deeper with Convolutions", section 5 and table 1. Parameters for 1000 classes: 6,624,904,
and 13,004,888 with the two auxiliary heads (`auxiliary=True`). The paper's error belongs to its own net
(googlenet.py), not to this one.

Differences from the paper: batch norm instead of local response normalisation, 3x3 convolutions instead of 5x5, 2x2
in the last max pooling instead of 3x3, and auxiliary heads that average-pool any map to 4x4 (adaptive).
"""

from __future__ import annotations

from collections.abc import Callable

import torchvision
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d

from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.errors import ModelError
from model_defs.googlenet import GoogLeNetBase
from model_defs.layers.pooled_map import refuse_smaller


class TorchvisionGoogLeNet(GoogLeNetBase, torchvision.models.GoogLeNet):
    """torchvision's GoogLeNet with our interface; [B, C, H, W] to [B, K].

    Args:
        auxiliary: adds heads after 4a and 4d.
        transform_input: convert images from ImageNet's normalisation to mean 0.5 and std 0.5, for weights that were
            trained with the latter, such as torchvision's.
    """

    conv1: BasicConv2d
    conv2: nn.Module
    conv3: nn.Module
    maxpool1: nn.Module
    maxpool2: nn.Module
    maxpool3: nn.Module
    maxpool4: nn.Module
    _transform_input: Callable[[Tensor], Tensor]

    family = "googlenet_torchvision"
    smallest = 15

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
        auxiliary: bool = False,
        transform_input: bool = False,
        dropout: float = 0.2,
    ) -> None:
        refuse_smaller(self.family, img_size, self.smallest)
        if transform_input and in_chans != 3:
            raise ModelError(f"{self.family}: transform_input is for images of 3 channels, not {in_chans}")
        with_heads = auxiliary and num_classes > 0
        super().__init__(
            num_classes=max(1, num_classes),
            aux_logits=with_heads,
            transform_input=transform_input,
            init_weights=True,
            dropout=dropout,
        )
        self.num_classes = num_classes
        self.img_size = img_size
        self.classifier_names = ("fc", "aux1.fc2", "aux2.fc2") if with_heads else ("fc",)
        if in_chans != 3:
            self.conv1.conv = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False)
            nn.init.trunc_normal_(self.conv1.conv.weight, std=0.01)
        if not num_classes:
            self.fc = nn.Identity()

    def stem(self, x: Tensor) -> Tensor:
        x = self.maxpool1(self.conv1(self._transform_input(x)))
        out: Tensor = self.maxpool2(self.conv3(self.conv2(x)))
        return out

    def pools(self) -> tuple[nn.Module, nn.Module]:
        return self.maxpool3, self.maxpool4


def googlenet_torchvision(
    *,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    auxiliary: bool = False,
    transform_input: bool = False,
    dropout: Rate = 0.2,
) -> TorchvisionGoogLeNet:
    """torchvision's GoogLeNet for images of about `img_size` pixels (224); accepts any size from 15."""
    return TorchvisionGoogLeNet(
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size or 224,
        auxiliary=auxiliary,
        transform_input=transform_input,
        dropout=dropout,
    )
