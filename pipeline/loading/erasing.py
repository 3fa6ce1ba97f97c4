"""Random erasing: a box of an image filled with its mean colour, or with noise (Zhong 2020, "Random Erasing").

The noise of a pixel is a function of the sample's key and the pixel's position alone, by integers: the same bits in any
batch and on any device.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from pipeline.loading.batch import on_device

# Mean and deviation of ImageNet's colours: the noise is standard normal after the usual normalisation, as in timm.
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_LEVELS = 1 << 16
_WORD = 0xFFFFFFFF


def erase_with_mean(images: Tensor, boxes: NDArray[np.float32]) -> Tensor:
    """Fills each sample's box with the sample's mean colour; uint8 [B, C, H, W].

    Args:
        boxes: [B, 4] top, left, bottom, right, as fractions of the side; all zero: no box.
    """
    means = images.sum(dim=(2, 3), dtype=torch.int64) // images[0, 0].numel()
    return torch.where(_inside(images, boxes), means.to(torch.uint8)[:, :, None, None], images)


def erase_with_noise(images: Tensor, boxes: NDArray[np.float32], keys: NDArray[np.int64]) -> Tensor:
    """Fills each sample's box with a normal random colour for each pixel; uint8 [B, C, H, W], changed in place.

    Args:
        boxes: see `erase_with_mean`.
        keys: [B] in [0, 2^32), of the samples.
    """
    channels, height, width = images.shape[1:]
    positions = torch.arange(channels * height * width, device=images.device).view(channels, height, width)
    colours = torch.from_numpy(_noise_colours(channels)).to(images.device, non_blocking=True)
    rows = np.flatnonzero(boxes.any(axis=1))
    if images.device.type != "cpu":  # few large operations instead of many small ones
        noise = _noise(colours, positions[None], on_device(keys[rows], images.device)[:, None, None, None])
        selected = on_device(rows, images.device)
        images[selected] = torch.where(_inside(images, boxes[rows]), noise, images[selected])
        return images
    edges = _edges(images, boxes)
    for row in rows:
        top, left, bottom, right = edges[row].tolist()
        box = (slice(None), slice(top, bottom), slice(left, right))
        images[row][box] = _noise(colours, positions[box][None], torch.from_numpy(keys[row : row + 1]))[0]
    return images


def _noise(colours: Tensor, positions: Tensor, keys: Tensor) -> Tensor:
    """The noise of samples with these keys at these positions, uint8 [B, C, h, w]."""
    levels = _mix(_mix(positions) ^ keys) % _LEVELS
    return torch.stack([colours[channel][levels[:, channel]] for channel in range(len(colours))], dim=1)


def _inside(images: Tensor, boxes: NDArray[np.float32]) -> Tensor:
    """Whether a pixel is in its sample's box, bool [B, 1, H, W]."""
    height, width = images.shape[-2:]
    top, left, bottom, right = on_device(_edges(images, boxes), images.device)[:, :, None, None].unbind(1)
    y = torch.arange(height, device=images.device)[None, :, None]
    x = torch.arange(width, device=images.device)[None, None, :]
    return ((y >= top) & (y < bottom) & (x >= left) & (x < right))[:, None]


def _edges(images: Tensor, boxes: NDArray[np.float32]) -> NDArray[np.int64]:
    """The boxes' edges in pixels, [B, 4]."""
    height, width = images.shape[-2:]
    return np.rint(boxes * np.array([height, width, height, width], np.float32)).astype(np.int64)


@lru_cache(maxsize=2)
def _noise_colours(channels: int) -> NDArray[np.uint8]:
    """Equally probable values of the normal distribution of each channel, uint8 [C, 2^16]."""
    normal = ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS)
    mean, std = (_MEAN, _STD) if channels == 3 else (_MEAN.mean(keepdims=True), _STD.mean(keepdims=True))
    values: NDArray[np.uint8] = np.clip(np.rint(255 * (mean[:, None] + std[:, None] * normal)), 0, 255).astype(np.uint8)
    return values


def _mix(x: Tensor) -> Tensor:
    """A hash of 32 bits, in int64 (Wellons 2018, "lowbias32")."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)
