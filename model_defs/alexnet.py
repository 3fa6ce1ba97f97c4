"""AlexNet.

Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.
60,965,224 parameters for 1000 classes. Error of the paper for one net, mean of ten crops (table 2), top-1/top-5:
40.7/18.2.

`AlexNet` is the paper's net: the split over two GPUs becomes two groups in the second, fourth and fifth convolution,
and responses are normalised after the first two, across both halves as in the formula of section 3.3.
Deviations: images of 227 pixels, since the paper's 224 give no whole number of strides; dropout that scales up in
training instead of down in evaluation; and the initialisation (`init_as_in_2012`), without biases of 1.

`TorchvisionAlexNet` is the net of torchvision's weights: Krizhevsky 2014, "One weird trick for parallelizing
convolutional neural networks"; 61,100,840 parameters. One column of 64-192-384-256-256 channels
without normalisation, for 224 pixels. No error is given here: torchvision's weights are not those of the paper.
"""

from __future__ import annotations

import torchvision
from torch import nn

from model_defs.arguments import Channels, Classes, Rate, Side
from model_defs.layers.flattened_map import FlattenedMap, head
from model_defs.layers.pooled_map import refuse_smaller


def response_norm() -> nn.LocalResponseNorm:
    """a / (2 + 1e-4 * sum of the squares of 5 neighbouring channels) ** 0.75; PyTorch divides its alpha by the 5."""
    return nn.LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def init_as_in_2012(net: FlattenedMap) -> None:
    """Draws weights from a normal distribution of std 0.01, as in section 5 and ZF-Net's paper; biases are 0.

    The papers' pixels range from 0 to 255 with a std of about 57; ours have a std of 1. So the first filters are scaled
    up by 57, which keeps responses in the range of their normalisation. The paper initialises the biases of five layers
    to 1; with AdamW such biases dominate the image for many steps (digits at 67 pixels, learning rate 1e-4: after 120
    steps of 32 images, 18% are correct with biases of 1; with biases of 0, 76% after 120 steps of 16).
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=0.01 * 57 if name == net.first_conv_name else 0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class AlexNet(FlattenedMap):
    """Five convolutions and three dense layers; [B, C, H, W] to [B, K]. At 227 pixels, the last map is 256 x 6 x 6.

    Args:
        dropout: rate before each of the first two dense layers.
    """

    family = "alexnet"
    smallest = 67

    def __init__(self, *, img_size: int, num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        refuse_smaller(self.family, img_size, self.smallest)
        self.num_classes = num_classes
        self.img_size = img_size
        self.features = self.convolutions(in_chans)
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(inplace=True),
            nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(inplace=True),
            head(num_classes),
        )  # fmt: skip
        init_as_in_2012(self)

    def convolutions(self, in_chans: int) -> nn.Sequential:
        """From the image to the last map, [B, 256, h, w]."""
        return nn.Sequential(
            nn.Conv2d(in_chans, 96, 11, stride=4), nn.ReLU(inplace=True), response_norm(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(inplace=True), response_norm(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2),
        )  # fmt: skip


class TorchvisionAlexNet(FlattenedMap, torchvision.models.AlexNet):
    """torchvision's AlexNet, with its parameter names; [B, C, H, W] to [B, K]."""

    family = "alexnet_torchvision"
    smallest = 63
    features: nn.Sequential
    avgpool: nn.Module
    classifier: nn.Sequential

    def __init__(
        self, *, num_classes: int = 1000, in_chans: int = 3, img_size: int = 224, dropout: float = 0.5
    ) -> None:
        refuse_smaller(self.family, img_size, self.smallest)
        super().__init__(num_classes=max(1, num_classes), dropout=dropout)
        self.num_classes = num_classes
        self.img_size = img_size
        if in_chans != 3:
            self.features[0] = nn.Conv2d(in_chans, 64, kernel_size=11, stride=4, padding=2)
        if not num_classes:
            self.classifier[-1] = nn.Identity()


def alexnet(
    *, num_classes: Classes = 1000, in_chans: Channels = 3, img_size: Side | None = None, dropout: Rate = 0.5
) -> AlexNet:
    """The paper's AlexNet for images of about `img_size` pixels (default: 227); accepts any size from 67."""
    return AlexNet(num_classes=num_classes, in_chans=in_chans, img_size=img_size or 227, dropout=dropout)


def alexnet_torchvision(
    *, num_classes: Classes = 1000, in_chans: Channels = 3, img_size: Side | None = None, dropout: Rate = 0.5
) -> TorchvisionAlexNet:
    """torchvision's AlexNet for images of about `img_size` pixels (default: 224); accepts any size from 63."""
    return TorchvisionAlexNet(num_classes=num_classes, in_chans=in_chans, img_size=img_size or 224, dropout=dropout)
