"""The pixel arithmetic of PIL's ImageOps and ImageEnhance on whole batches, on any device.

All functions take and return uint8 [B, C, H, W]; a parameter has one value for each sample, [B, 1, 1, 1]. They are
elementwise or use integer sums, so a sample's bits do not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.loading.batch import on_device

_BLUR_TAPS = 2  # to each side; enough for a deviation of 2 pixels


def apply_layers(
    images: Tensor,
    operations: NDArray[np.int8],
    values: NDArray[np.float32],
    functions: Sequence[Callable[[Tensor, Tensor], Tensor]],
) -> Tensor:
    """Applies each sample's operations, layer by layer; `images` is changed in place.

    Args:
        operations: [B, layers], positions in `functions`; -1 is no operation.
        values: [B, layers], the parameters of the operations.
    """
    for layer in range(operations.shape[1]):
        for number in np.unique(operations[:, layer]):
            if number < 0:
                continue
            selected = np.flatnonzero(operations[:, layer] == number)
            rows = on_device(selected, images.device)
            parameter = on_device(values[selected, layer], images.device)[:, None, None, None]
            images[rows] = functions[number](images[rows], parameter)
    return images


def auto_contrast(images: Tensor) -> Tensor:
    """Stretches each channel to 0..255."""
    flat = images.flatten(2).float()
    low, high = flat.amin(2)[..., None, None], flat.amax(2)[..., None, None]
    stretched = (images.float() - low) * (255 / (high - low).clamp(min=1))
    return torch.where(high > low, stretched, images.float()).clamp(0, 255).to(torch.uint8)


def equalize(images: Tensor) -> Tensor:
    """Flattens the histogram of each channel, by PIL's integer rule."""
    batch, channels = images.shape[:2]
    values = images.reshape(batch * channels, -1).long()
    counts = torch.zeros(len(values), 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    last = 255 - (counts.flip(1) > 0).to(torch.uint8).argmax(1)
    step = (counts.sum(1) - counts.gather(1, last[:, None])[:, 0]) // 255
    before = counts.cumsum(1) - counts
    table = ((before + step[:, None] // 2) // step.clamp(min=1)[:, None]).clamp(0, 255)
    table = torch.where(step[:, None] > 0, table, torch.arange(256, device=images.device)[None])
    return table.gather(1, values).reshape(images.shape).to(torch.uint8)


def posterize(images: Tensor, dropped: Tensor) -> Tensor:
    """Clears the lowest `dropped` bits."""
    dropped = dropped.int()
    return torch.bitwise_left_shift(torch.bitwise_right_shift(images.int(), dropped), dropped).to(torch.uint8)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts values at or above a threshold."""
    return torch.where(images >= threshold, 255 - images, images)


def adjust_color(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the saturation; a grey image does not change."""
    return _blend(_grey(images).float().expand(images.shape), images, factor)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the contrast around the image's mean grey."""
    grey = _grey(images)
    pixels = grey.shape[-1] * grey.shape[-2]
    mean = (grey.sum(dim=(1, 2, 3), dtype=torch.int64)[:, None, None, None] * 2 + pixels) // (2 * pixels)
    return _blend(mean.float().expand(images.shape), images, factor)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the brightness."""
    return _blend(torch.zeros_like(images, dtype=torch.float32), images, factor)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Sharpens or smooths the image; the border pixels do not change."""
    x = images.int()
    height, width = x.shape[-2:]
    if min(height, width) < 3:
        return images
    total = 4 * x[..., 1:-1, 1:-1]
    for dy in range(3):
        for dx in range(3):
            total = total + x[..., dy : height - 2 + dy, dx : width - 2 + dx]
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = (2 * total + 13) // 26
    return _blend(smooth.float(), images, factor)


def grayscale(images: Tensor) -> Tensor:
    """Grey, in all channels."""
    return _grey(images).to(torch.uint8).expand(images.shape)


def gaussian_blur(images: Tensor, deviation: Tensor) -> Tensor:
    """PIL's Gaussian blur: three box filters with soft ends in each direction, rounded after each.

    Source: Gwosdek 2011, "Theoretical foundations of Gaussian convolution by extended box filtering".

    Args:
        deviation: in pixels, at most 2.
    """
    variance = deviation.double() ** 2 / 3
    whole = torch.floor((torch.sqrt(12 * variance + 1) - 1) / 2)
    soft = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    inner = 1 / (2 * (whole + soft) + 1)
    outer = (1 - (2 * whole + 1) * inner) / 2
    nothing = torch.zeros_like(inner)
    weights = [
        torch.where(whole >= tap, inner, torch.where(whole + 1 == tap, outer, nothing)).float()
        for tap in range(_BLUR_TAPS + 1)
    ]
    pixels = images.float()
    for axis in (-1, -2):
        size = pixels.shape[axis]
        padding = (_BLUR_TAPS, _BLUR_TAPS, 0, 0) if axis == -1 else (0, 0, _BLUR_TAPS, _BLUR_TAPS)
        for _ in range(3):
            padded = F.pad(pixels, padding, mode="replicate")
            blurred = weights[0] * pixels + 0.5
            for tap in range(1, _BLUR_TAPS + 1):
                ends = padded.narrow(axis, _BLUR_TAPS - tap, size) + padded.narrow(axis, _BLUR_TAPS + tap, size)
                blurred += weights[tap] * ends
            pixels = blurred.floor_()
    return pixels.clamp_(0, 255).to(torch.uint8)


def affine(images: Tensor, matrix: Tensor, fill: int) -> Tensor:
    """PIL's affine transform with bilinear interpolation.

    Args:
        matrix: [B, 2, 3]: the position in the image, in pixels, of each position in the result.
        fill: value of pixels whose position is outside the image.
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device)[None, None, :] + 0.5
    y = torch.arange(height, device=images.device)[None, :, None] + 0.5
    (a, b, c), (d, e, f) = ([column[:, None, None] for column in row.unbind(1)] for row in matrix.unbind(1))
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    grid = torch.stack([2 * from_x / width - 1, 2 * from_y / height - 1], dim=-1)
    moved = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    return torch.where(inside[:, None], moved, float(fill)).clamp_(0, 255).to(torch.uint8)


def translate(images: Tensor, x: Tensor, y: Tensor, fill: int) -> Tensor:
    """Moves each image right by x and down by y whole pixels."""
    height, width = images.shape[-2:]
    from_x = torch.arange(width, device=images.device)[None, None, None, :] - x.long()
    from_y = torch.arange(height, device=images.device)[None, None, :, None] - y.long()
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    rows = images.gather(2, from_y.clamp(0, height - 1).expand(images.shape))
    return torch.where(inside, rows.gather(3, from_x.clamp(0, width - 1).expand(images.shape)), fill)


def _blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """PIL's ImageEnhance: factor 1 gives the image, 0 the degenerate image."""
    return (degenerate + factor * (images.float() - degenerate)).clamp(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Grey [B, 1, H, W] as int32, by PIL's fixed-point weights."""
    x = images.int()
    if images.shape[1] == 1:
        return x
    return ((19595 * x[:, 0] + 38470 * x[:, 1] + 7471 * x[:, 2] + 0x8000) >> 16)[:, None]
