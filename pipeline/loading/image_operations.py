"""The operations of AutoAugment's family: on a CPU by PIL, image by image; on a GPU on the whole batch.

Their magnitudes are those of torchvision.transforms.v2, and on PIL images they give its pixels; affine operations
interpolate bilinearly and fill with mid grey. On a GPU values differ by at most two levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from pipeline.loading import tensor_operations as tensors
from pipeline.loading.batch import on_device

FILL = 128


class Operation(NamedTuple):
    """An operation, as a function of an image or of a batch, and of its magnitude or magnitudes [B, 1, 1, 1]."""

    of_image: Callable[[Image.Image, float], Image.Image]
    of_batch: Callable[[Tensor, Tensor], Tensor]


def apply_operations(
    images: Tensor, operations: NDArray[np.int8], magnitudes: NDArray[np.float32], weights: NDArray[np.float32]
) -> Tensor:
    """Applies each sample's operations, one after another; uint8 [B, C, H, W], changed in place.

    Args:
        operations: [B, N] positions in `OPERATIONS`; -1: none.
        magnitudes: [B, N].
        weights: [B, 0], or [B, 1 + chains] of a mixture: of the image, and of each of the chains of N / chains
            operations on it.
    """
    chains = max(1, weights.shape[1] - 1)
    of_chains = np.split(operations, chains, axis=1), np.split(magnitudes, chains, axis=1)
    if images.device.type == "cpu":
        for row in np.flatnonzero((operations >= 0).any(axis=1)):
            parts = ((names[row], values[row]) for names, values in zip(*of_chains, strict=True))
            _apply_to_image(images[row].numpy(), list(parts), weights[row])
        return images
    results = [_applied_to_batch(images.clone(), *chain) for chain in zip(*of_chains, strict=True)]
    if not weights.shape[1]:
        return results[0]
    per_part = on_device(weights, images.device)[:, :, None, None, None].unbind(1)
    mixture = per_part[0] * images.float()
    for weight, result in zip(per_part[1:], results, strict=True):
        mixture += weight * result.float()
    return mixture.clamp_(0, 255).to(torch.uint8)


def _apply_to_image(
    pixels: NDArray[np.uint8],
    chains: list[tuple[NDArray[np.int8], NDArray[np.float32]]],
    weights: NDArray[np.float32],
) -> None:
    """Changes one image, uint8 [C, H, W], in place."""
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in pixels]
    original = planes[0] if len(planes) == 1 else Image.merge("RGB", planes)
    results = []
    for operations, magnitudes in chains:
        image = original
        for number, magnitude in zip(operations.tolist(), magnitudes.tolist(), strict=True):
            if number >= 0:
                image = _OF_NUMBER[number].of_image(image, magnitude)
        results.append(image)
    if not len(weights):
        for plane, band in zip(pixels, results[0].split(), strict=True):
            plane[...] = np.asarray(band)
        return
    shape = (*original.size[::-1], len(planes))
    mixture = weights[0] * np.asarray(original, np.float32).reshape(shape)
    for weight, image in zip(weights[1:], results, strict=True):
        mixture += weight * np.asarray(image, np.float32).reshape(shape)
    pixels[...] = np.clip(mixture, 0, 255).astype(np.uint8).transpose(2, 0, 1)


def _applied_to_batch(images: Tensor, operations: NDArray[np.int8], magnitudes: NDArray[np.float32]) -> Tensor:
    return tensors.apply_layers(images, operations, magnitudes, [operation.of_batch for operation in _OF_NUMBER])


def _image_affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_fill_colour(image)
    )


def _image_moved(image: Image.Image, x: float, y: float) -> Image.Image:
    moved = Image.new(image.mode, image.size, _fill_colour(image))
    moved.paste(image, (int(x), int(y)))
    return moved


def _image_posterized(image: Image.Image, bits: float) -> Image.Image:
    """ImageOps.posterize, which refuses 0 bits: black."""
    mask = 256 - (1 << (8 - round(bits)))
    return image.point([value & mask for value in range(256)] * len(image.getbands()))


def _fill_colour(image: Image.Image) -> tuple[int, ...]:
    return (FILL,) * len(image.getbands())


def _batch_affine(images: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    rows = [torch.stack([value.flatten() for value in row], dim=1) for row in ((a, b, c), (d, e, f))]
    return tensors.affine(images, torch.stack(rows, dim=1), FILL)


def _batch_shear(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _batch_affine(images, one, x, zero, y, one, zero)


def _batch_rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotates counter-clockwise around the centre."""
    height, width = images.shape[-2:]
    angle = -degrees * (math.pi / 180)
    cos, sin, x, y = angle.cos(), angle.sin(), width / 2, height / 2
    return _batch_affine(images, cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


def _whole(pixels: float) -> float:
    """Whole pixels towards zero; a little more than the product, which a rounded factor may put below an integer."""
    return math.trunc(pixels * (1 + 1e-6))


def _batch_moved(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return tensors.translate(images, (x.double() * (1 + 1e-6)).trunc(), (y.double() * (1 + 1e-6)).trunc(), FILL)


OPERATIONS: dict[str, Operation] = {
    # Shears by a tangent, from the upper left corner, as in the code of AutoAugment.
    "shear_x": Operation(
        lambda image, m: _image_affine(image, (1, m, 0, 0, 1, 0)), lambda x, m: _batch_shear(x, m, 0 * m)
    ),
    "shear_y": Operation(
        lambda image, m: _image_affine(image, (1, 0, 0, m, 1, 0)), lambda x, m: _batch_shear(x, 0 * m, m)
    ),
    # By a fraction of the side.
    "translate_x": Operation(
        lambda image, m: _image_moved(image, _whole(m * image.width), 0),
        lambda x, m: _batch_moved(x, m * x.shape[-1], 0 * m),
    ),
    "translate_y": Operation(
        lambda image, m: _image_moved(image, 0, _whole(m * image.height)),
        lambda x, m: _batch_moved(x, 0 * m, m * x.shape[-2]),
    ),
    # By pixels.
    "shift_x": Operation(lambda image, m: _image_moved(image, _whole(m), 0), lambda x, m: _batch_moved(x, m, 0 * m)),
    "shift_y": Operation(lambda image, m: _image_moved(image, 0, _whole(m)), lambda x, m: _batch_moved(x, 0 * m, m)),
    # By degrees, counter-clockwise.
    "rotate": Operation(
        lambda image, m: image.rotate(m, Image.Resampling.BILINEAR, fillcolor=_fill_colour(image)), _batch_rotate
    ),
    # Scaled by 1 + magnitude.
    "brightness": Operation(
        lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m),
        lambda x, m: tensors.adjust_brightness(x, 1 + m),
    ),
    "color": Operation(
        lambda image, m: ImageEnhance.Color(image).enhance(1 + m), lambda x, m: tensors.adjust_color(x, 1 + m)
    ),
    "contrast": Operation(
        lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m), lambda x, m: tensors.adjust_contrast(x, 1 + m)
    ),
    "sharpness": Operation(
        lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m), lambda x, m: tensors.adjust_sharpness(x, 1 + m)
    ),
    # To a number of bits.
    "posterize": Operation(_image_posterized, lambda x, m: tensors.posterize(x, (8 - m).round())),
    # From a fraction of white.
    "solarize": Operation(
        lambda image, m: ImageOps.solarize(image, m),  # type: ignore[arg-type]
        tensors.solarize,
    ),
    "auto_contrast": Operation(lambda image, _: ImageOps.autocontrast(image), lambda x, _: tensors.auto_contrast(x)),
    "equalize": Operation(lambda image, _: ImageOps.equalize(image), lambda x, _: tensors.equalize(x)),
    "invert": Operation(lambda image, _: ImageOps.invert(image), lambda x, _: 255 - x),
    "grayscale": Operation(
        lambda image, _: ImageOps.grayscale(image).convert(image.mode), lambda x, _: tensors.grayscale(x)
    ),
    # By a deviation in pixels.
    "blur": Operation(lambda image, m: image.filter(ImageFilter.GaussianBlur(m)), tensors.gaussian_blur),
}
_OF_NUMBER = list(OPERATIONS.values())
