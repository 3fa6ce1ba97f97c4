"""RandAugment on whole batches: a few operations for each sample, drawn by (seed, epoch, sample).

Cubuk 2020, "RandAugment: Practical automated data augmentation with a reduced search space", with the operations and
strengths of timm's "rand-m9-mstd0.5-inc1", DeiT's recipe: strength increases with magnitude, and each operation is
applied with probability 0.5. Difference: affine operations interpolate bilinearly and fill with mid grey.

An operation runs once for all samples of a batch that drew it, on their device, by the arithmetic of
tensor_operations.py, so a sample's bits do not depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.counter_rng import uniforms
from pipeline.loading import tensor_operations as tensors
from pipeline.loading.auto_augment_config import RandAugmentConfig

_FILL = 128.0
_NUMBERS_PER_LAYER = 5  # random numbers: whether to apply an operation, which one, two for its strength, its sign


def draw(
    config: RandAugmentConfig, seed: int, epoch: int, ids: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Each sample's operations (indices into `OPERATIONS`, -1: none) and strengths in [-1, 1], both [B, layers]."""
    u = uniforms(seed, "rand-augment", epoch, ids, _NUMBERS_PER_LAYER * config.layers).reshape(
        len(ids), config.layers, _NUMBERS_PER_LAYER
    )
    chosen = np.where(u[..., 0] < config.probability, (u[..., 1] * len(OPERATIONS)).astype(np.int8), -1)
    # Box and Muller; 1 - u is never zero.
    normal = np.sqrt(-2 * np.log(1 - u[..., 2])) * np.cos(2 * math.pi * u[..., 3])
    strength = np.clip(config.magnitude + config.magnitude_std * normal, 0, 10) / 10
    return chosen.astype(np.int8), (strength * np.where(u[..., 4] < 0.5, -1, 1)).astype(np.float32)


def rand_augment(images: Tensor, operations: NDArray[np.int8], strengths: NDArray[np.float32]) -> Tensor:
    """Applies each sample's operations, layer by layer; uint8 [B, C, H, W], changed in place.

    Args:
        operations, strengths: [B, layers], see `draw`.
    """
    return tensors.apply_layers(images, operations, strengths, list(OPERATIONS.values()))


def auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretches each channel to 0..255."""
    return tensors.auto_contrast(images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Flattens the histogram of each channel."""
    return tensors.equalize(images)


def invert(images: Tensor, _: Tensor) -> Tensor:
    """255 - x."""
    return 255 - images


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Keeps the upper 4 bits, or fewer, down to none."""
    return tensors.posterize(images, 4 + (strength.abs() * 4).to(torch.uint8))


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Inverts values at or above a threshold."""
    return tensors.solarize(images, 256 - (strength.abs() * 256).int())


def solarize_add(images: Tensor, strength: Tensor) -> Tensor:
    """Adds up to 110 to values below 128."""
    added = (images.int() + (strength.abs() * 110).int()).clamp(max=255).to(torch.uint8)
    return torch.where(images < 128, added, images)


def color(images: Tensor, strength: Tensor) -> Tensor:
    """Scales the saturation by 0.1 to 1.9."""
    return tensors.adjust_color(images, 1 + 0.9 * strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Scales the contrast by 0.1 to 1.9."""
    return tensors.adjust_contrast(images, 1 + 0.9 * strength)


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Scales the brightness by 0.1 to 1.9."""
    return tensors.adjust_brightness(images, 1 + 0.9 * strength)


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Sharpens or smooths the image by 0.1 to 1.9."""
    return tensors.adjust_sharpness(images, 1 + 0.9 * strength)


def rotate(images: Tensor, strength: Tensor) -> Tensor:
    """Rotates by up to 30 degrees around the centre."""
    angle = strength.flatten() * math.radians(30)
    cos, sin = angle.cos(), angle.sin()
    return _affine(images, [[cos, -sin], [sin, cos]])


def shear_x(images: Tensor, strength: Tensor) -> Tensor:
    """Shifts rows by up to 0.3 of their distance to the middle."""
    shear = strength.flatten() * 0.3
    ones = torch.ones_like(shear)
    return _affine(images, [[ones, shear], [0 * ones, ones]])


def shear_y(images: Tensor, strength: Tensor) -> Tensor:
    """Shifts columns by up to 0.3 of their distance to the middle."""
    shear = strength.flatten() * 0.3
    ones = torch.ones_like(shear)
    return _affine(images, [[ones, 0 * ones], [shear, ones]])


def translate_x(images: Tensor, strength: Tensor) -> Tensor:
    """Shifts by up to 0.45 of the width."""
    ones = torch.ones_like(strength.flatten())
    return _affine(images, [[ones, 0 * ones], [0 * ones, ones]], x=strength.flatten() * 0.9)


def translate_y(images: Tensor, strength: Tensor) -> Tensor:
    """Shifts by up to 0.45 of the height."""
    ones = torch.ones_like(strength.flatten())
    return _affine(images, [[ones, 0 * ones], [0 * ones, ones]], y=strength.flatten() * 0.9)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    function.__name__: function
    for function in (
        auto_contrast, equalize, invert, rotate, posterize, solarize, solarize_add, color, contrast,
        brightness, sharpness, shear_x, shear_y, translate_x, translate_y,
    )
}  # fmt: skip


def _affine(images: Tensor, matrix: list[list[Tensor]], x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
    """Samples each output pixel at the position to which `matrix` and a shift map it; outside is mid grey.

    The matrix is in pixels, so that it rotates oblong images correctly; affine_grid, and the shift, use half sides.
    """
    height, width = images.shape[-2:]
    (a, b), (c, d) = matrix
    zero = torch.zeros_like(a)
    theta = torch.stack(
        [
            torch.stack([a, b * height / width, zero if x is None else x], dim=1),
            torch.stack([c * width / height, d, zero if y is None else y], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float() - _FILL, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (moved + _FILL + 0.5).clamp(0, 255).to(torch.uint8)
