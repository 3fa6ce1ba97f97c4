"""Hue shift of images, as a rotation of the colour circle of HSV: value and saturation do not change."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.loading.batch import on_device


def shift_hue(images: Tensor, shifts: NDArray[np.float32]) -> Tensor:
    """RGB images uint8 [B, 3, H, W] with their hues shifted, rounded once.

    With hi = max(r, g, b), chroma = hi - min(r, g, b) and the hue in sixths of the circle, a channel of the result is
    hi - chroma * clamp(min(k, 4 - k), 0, 1), where k = (n + hue) mod 6 and n is 5, 3, 1 for red, green, blue. All
    operations are elementwise, so the bits of an image do not depend on its batch.

    Args:
        shifts: float32 [B], in circles.
    """
    red, green, blue = images.to(torch.float32).unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    chroma = high - torch.minimum(torch.minimum(red, green), blue)
    inverse = chroma.clamp(min=1).reciprocal_()  # of integers: grey, without chroma, has no hue
    hue = torch.where(
        red == high,
        (green - blue) * inverse,
        torch.where(green == high, (blue - red) * inverse + 2, (red - green) * inverse + 4),
    )
    hue += 6 * on_device(shifts, images.device)[:, None, None]
    high += 0.5  # makes the truncation to integers round
    result = torch.empty_like(images)
    for channel, n in enumerate((5, 3, 1)):
        k = (hue + n).remainder_(6)
        result[:, channel] = torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma).neg_().add_(high).to(torch.uint8)
    return result
