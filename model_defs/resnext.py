"""ResNeXt: residual networks with grouped convolutions in the bottlenecks.

Xie, Girshick, Dollar, Tu, He 2016, "Aggregated Residual Transformations for Deep Neural Networks", section 3 and
table 1. Parameters for 1000 classes: 50-32x4d 25,028,904; 101-32x4d 44,177,704; 101-32x8d 88,791,336;
101-64x4d 83,455,272. Errors of the paper with one crop of 224 pixels (tables 3 and 4), top-1/top-5: 50-32x4d 22.2/-,
101-32x4d 21.2/5.6, 101-64x4d 20.4/5.3; 101-32x8d is torchvision's, not the paper's.

The class and the parameter names are torchvision's; "32x4d" means 32 groups of 4 channels in the first stage.
`squeeze_excite=True` gives an SE-ResNeXt (see senet.py for the released ones).
"""

from __future__ import annotations

from model_defs.arguments import Channels, Classes, Side
from model_defs.resnet import ResNet


def resnext(
    *,
    layers: int,
    groups: int,
    width_per_group: int,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    squeeze_excite: bool = False,
) -> ResNet:
    """ResNeXt-`layers` for images of about `img_size` pixels (224); accepts any size from 32."""
    return ResNet(
        layers,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size or 224,
        groups=groups,
        width_per_group=width_per_group,
        squeeze_excite=squeeze_excite,
    )
