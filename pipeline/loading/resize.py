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
from numpy.typing import NDArray
from torch.nn.functional import interpolate


def resize_to_square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The centre square of an image at the size of a model, uint8 [size, size, C].

    Args:
        pixels: uint8 [H, W, C].
        size: side of the result in pixels.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    pixels = resize(pixels, int(size * height / short), int(size * width / short))
    top, left = round((pixels.shape[0] - size) / 2), round((pixels.shape[1] - size) / 2)
    return pixels[top : top + size, left : left + size]


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """An image uint8 [H, W, C] scaled to exactly this size, antialiased bilinear on uint8, [height, width, C]."""
    if pixels.shape[:2] == (height, width):
        return pixels
    # One operation of torch, on memory that shows it that a pixel's colours lie side by side: it takes twice as long to
    # see that from a part of an image, and each operation more hands the interpreter's lock to a waiting thread.
    batch = np.empty((1, *pixels.shape), np.uint8)
    batch[0] = pixels
    images = torch.from_numpy(batch.transpose(0, 3, 1, 2))
    scaled = interpolate(images, size=(height, width), mode="bilinear", antialias=True).numpy()
    return scaled[0].transpose(1, 2, 0)
