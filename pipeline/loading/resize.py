"""Resizing an image to a square of the model's size, by one rule for training, evaluation and serving.

The short side is resized to `size` and the long side to int(size * long / short), by antialiased bilinear interpolation
on uint8; then the centre is cropped. Square images, as our sharding writes them, are only resized. The result equals
Resize(size) followed by CenterCrop(size) of torchvision.transforms.v2, bit for bit (on a processor without AVX2,
torchvision rounds some values the other way). A registered model, which cannot import this file, uses these
transforms or the same torch calls.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from pipeline.pixels.interpolation import Interpolation


def resize_to_square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The centre square of an image, resized to [size, size, C], uint8.

    Args:
        pixels: uint8 [H, W, C].
        size: side of the result in pixels.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    pixels = resize(pixels, int(size * height / short), int(size * width / short))
    top, left = round((pixels.shape[0] - size) / 2), round((pixels.shape[1] - size) / 2)
    return pixels[top : top + size, left : left + size]


def resize(
    pixels: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation = "bilinear"
) -> NDArray[np.uint8]:
    """An image uint8 [H, W, C] resized to [height, width, C], antialiased on uint8."""
    if pixels.shape[:2] == (height, width):
        return pixels
    # One torch operation, on contiguous channels-last memory: on a view of a larger image it takes twice as long, and
    # each further operation passes the interpreter's lock to a waiting thread.
    batch = np.empty((1, *pixels.shape), np.uint8)
    batch[0] = pixels
    images = torch.from_numpy(batch.transpose(0, 3, 1, 2))
    scaled = interpolate(images, size=(height, width), mode=interpolation, antialias=True).numpy()
    return scaled[0].transpose(1, 2, 0)
