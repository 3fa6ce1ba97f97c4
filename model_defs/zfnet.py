"""ZF-Net: AlexNet, improved by visualising its layers.

Zeiler, Fergus 2013, "Visualizing and Understanding Convolutional Networks", section 4.1 and figure 3. 62,357,608
parameters for 1000 classes. Error of the paper for one net (table 2 of arXiv v3, "1 convnet as per Fig. 3"; the test
protocol is not stated), top-1/top-5: 38.4/16.5.

Projections of AlexNet's first two layers (`pipeline.explain.deconvnet`) showed extreme frequencies and aliasing; so the
first convolution is 7x7 with stride 2 and not 11x11 with stride 4, and no layer is split over two GPUs. Maps of a
224-pixel image have sides 110, 55, 26, 13 and 6.

Responses are normalised after the first two poolings, not before them as in AlexNet. The paper gives no constants:
here they are AlexNet's. Weights are initialised as in section 3, except for the scale of the pixels; the paper's
renormalisation of filters during training is omitted.
"""

from __future__ import annotations

from torch import nn

from model_defs.alexnet import AlexNet, response_norm
from model_defs.arguments import Channels, Classes, Rate, Side


class ZFNet(AlexNet):
    """AlexNet with other convolutions; [B, C, H, W] to [B, K]. The last map of 224 pixels is 256 x 6 x 6."""

    family = "zfnet"
    smallest = 53

    def convolutions(self, in_chans: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_chans, 96, 7, stride=2, padding=1), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1), response_norm(),
            nn.Conv2d(96, 256, 5, stride=2), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1), response_norm(),
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2),
        )  # fmt: skip


def zfnet(
    *, num_classes: Classes = 1000, in_chans: Channels = 3, img_size: Side | None = None, dropout: Rate = 0.5
) -> ZFNet:
    """ZF-Net for images of about `img_size` pixels (224); accepts any size from 53."""
    return ZFNet(num_classes=num_classes, in_chans=in_chans, img_size=img_size or 224, dropout=dropout)
