"""VGG: a deep net with AlexNet's structure and only small filters.

Simonyan, Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition", section 2 and table 1.
Parameters for 1000 classes; errors of the paper with one scale of training and test images (256) and the net applied to
the whole image and its mirror image (table 3), top-1/top-5:

    vgg11       A       132,863,336   29.6/10.4
    vgg11_lrn   A-LRN   132,863,336   29.7/10.5
    vgg13       B       133,047,848   28.7/9.9
    vgg16_1x1   C       133,638,952   28.1/9.4
    vgg16       D       138,357,544   27.0/8.8
    vgg19       E       143,667,240   27.3/9.0

A, B, D and E are torchvision's class with its parameter names, and so are the variants with batch norm (Ioffe, Szegedy
2015), which are later than the paper. A-LRN normalises the responses of the first convolution as AlexNet does; C is B
with a 1x1 convolution at the end of the last three stages. Deviation: weights are initialised as in He et al. 2015;
the paper initialised the deep nets with layers of a trained A.
"""

from __future__ import annotations

from typing import Literal

from torch import nn
from torchvision.models import vgg as torchvision_vgg

from model_defs.alexnet import response_norm
from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.layers.flattened_map import FlattenedMap
from model_defs.layers.pooled_map import refuse_smaller

Configuration = Literal["A", "A-LRN", "B", "C", "D", "E"]

WIDTHS = (64, 128, 256, 512, 512)
# Number of convolutions in each of the five stages.
STAGES: dict[Configuration, tuple[int, ...]] = {
    "A": (1, 1, 2, 2, 2),
    "A-LRN": (1, 1, 2, 2, 2),
    "B": (2, 2, 2, 2, 2),
    "C": (2, 2, 3, 3, 3),
    "D": (2, 2, 3, 3, 3),
    "E": (2, 2, 4, 4, 4),
}


class VGG(FlattenedMap, torchvision_vgg.VGG):
    """Five stages of convolutions and three dense layers; [B, C, H, W] to [B, K]. The last map is 1/32 of the image.

    Args:
        configuration: a column of the paper's table 1.
        batch_norm: adds batch norm after each convolution.
        dropout: rate after each of the first two dense layers.
    """

    family = "vgg"
    smallest = 32
    features: nn.Sequential
    avgpool: nn.Module
    classifier: nn.Sequential

    def __init__(
        self,
        configuration: Configuration,
        *,
        batch_norm: bool = False,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
        dropout: float = 0.5,
    ) -> None:
        refuse_smaller(self.family, img_size, self.smallest)
        features = nn.Sequential(*_stages(configuration, in_chans, batch_norm))
        super().__init__(features, num_classes=max(1, num_classes), dropout=dropout)
        self.num_classes = num_classes
        self.img_size = img_size
        if not num_classes:
            self.classifier[-1] = nn.Identity()


def _stages(configuration: Configuration, in_chans: int, batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = in_chans
    for stage, (depth, width) in enumerate(zip(STAGES[configuration], WIDTHS, strict=True)):
        for index in range(depth):
            kernel = 1 if configuration == "C" and stage >= 2 and index == depth - 1 else 3
            layers.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        if configuration == "A-LRN" and stage == 0:
            layers.append(response_norm())
        layers.append(nn.MaxPool2d(2, stride=2))
    return layers


def vgg(
    *,
    configuration: Configuration,
    batch_norm: bool,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    dropout: Rate = 0.5,
) -> VGG:
    """A VGG for images of about `img_size` pixels (224); accepts any size from 32."""
    return VGG(
        configuration,
        batch_norm=batch_norm,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size or 224,
        dropout=dropout,
    )
