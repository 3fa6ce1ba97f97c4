"""How an image becomes a square of the model's size: the one rule, for training, evaluation and service.

The short side becomes `size` by antialiased bilinear interpolation on uint8, the long side
int(size * long / short), and the centre is cut out. Square images, which is what our sharding
makes, are scaled whole. It is what torchvision.transforms.v2 does as Resize(size) followed by
CenterCrop(size), to the bit (on a processor without AVX2 torchvision rounds some values the other
way); a registered model, which cannot import this file, uses those or the same calls of torch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


def resize_to_square(image: Tensor, size: int) -> Tensor:
    """The centre square of an image at the size of a model, uint8 [C, size, size].

    Args:
        image: uint8 [C, H, W].
        size: side of the result in pixels.
    """
    height, width = image.shape[-2:]
    short = min(height, width)
    image = resize(image, int(size * height / short), int(size * width / short))
    top, left = round((image.shape[-2] - size) / 2), round((image.shape[-1] - size) / 2)
    return image[:, top : top + size, left : left + size]


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """An image scaled to exactly this size, antialiased bilinear on uint8, [C, height, width]."""
    if image.shape[-2:] == (height, width):
        return image
    batch = image[None]
    if image.stride(0) == 1:
        # Colours side by side, as decoders leave them: torch takes half the time if it may see that they are, which
        # it does in memory of their own. NumPy copies, since torch would start threads in each decoding thread.
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    return interpolate(batch, size=(height, width), mode="bilinear", antialias=True)[0]
