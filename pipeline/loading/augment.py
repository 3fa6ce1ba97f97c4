"""Augmentation of training images: the view of a sample is a function of (seed, epoch, sample) alone.

`view_parameters` draws the parameters for a batch of ids. They are the same in every process and every batch, so a
teacher's output for a view can be cached, and batches do not depend on the number of workers. The crop is applied
while decoding; `apply_on_device` applies the rest to many images at once, on their device. Its bits for a sample do
not depend on the batch, because it uses only elementwise operations and integer sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.counter_rng import uniforms
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.batch import on_device
from pipeline.loading.decode import Crop
from pipeline.loading.rand_augment import draw, rand_augment

# Weights of red, green and blue in luminance (ITU-R BT.601, as PIL and torchvision convert to grey).
_LUMA: tuple[float, ...] = (0.299, 0.587, 0.114)
_BLOCK_BYTES = 1 << 18
_PER_SAMPLE_FIELDS = ("crops", "flips", "colours", "boxes", "operations", "strengths")


@dataclass(frozen=True)
class ViewParameters:
    """The augmentation of each sample of a batch.

    Attributes:
        crops: [B, 4] area, ratio, top, left: see `Crop`.
        flips: bool [B].
        colours: float32 [B, 3]: factors of brightness, contrast, saturation, applied in this order.
        boxes: float32 [B, 4]: top, left, bottom, right of the erased box, as fractions of the side; all zero:
            no box.
        of_square: the crops' areas are fractions of the largest square in the image, see `Crop`.
        operations, strengths: [B, layers] of RandAugment, see `rand_augment.draw`; layers is 0 without it.
    """

    crops: NDArray[np.float64]
    flips: NDArray[np.bool_]
    colours: NDArray[np.float32]
    boxes: NDArray[np.float32]
    of_square: bool
    operations: NDArray[np.int8]
    strengths: NDArray[np.float32]

    def crop(self, row: int) -> Crop:
        """The crop of one sample of the batch."""
        area, ratio, top, left = self.crops[row].tolist()
        return Crop(area, ratio, top, left, self.of_square)

    def select(self, rows: slice) -> ViewParameters:
        """The views of a slice of the batch."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _PER_SAMPLE_FIELDS})

    @classmethod
    def concatenate(cls, views: Sequence[ViewParameters]) -> ViewParameters:
        """The views of several batches, concatenated; all drawn by one config."""
        joined = {name: np.concatenate([getattr(view, name) for view in views]) for name in _PER_SAMPLE_FIELDS}
        return cls(of_square=views[0].of_square, **joined)


def view_parameters(config: AugmentConfig, seed: int, epoch: int, ids: NDArray[np.int64]) -> ViewParameters:
    """The parameters of each sample's view in an epoch; they do not depend on the batch."""
    u = uniforms(seed, "view", epoch, ids, 12)
    if config.scale_jitter is None:
        max_log_ratio = math.log(config.crop_max_ratio)
        area = config.crop_min_area + (config.crop_max_area - config.crop_min_area) * u[:, 0]
        ratio = np.exp(max_log_ratio * (2 * u[:, 1] - 1))
    else:
        smallest, largest = config.scale_jitter
        area, ratio = (smallest + (largest - smallest) * u[:, 0]) ** -2.0, np.ones(len(ids))
    crops = np.stack([area, ratio, u[:, 2], u[:, 3]], axis=1)
    spans = np.array([config.brightness, config.contrast, config.saturation])
    colours = 1 + spans * (2 * u[:, 5:8] - 1)
    # The box covers 0.02 to `erase_max_area` of the image, has an aspect ratio of at most 3:1, and is entirely inside
    # the image (Zhong 2020, section 3.2).
    area = 0.02 + (config.erase_max_area - 0.02) * u[:, 9]
    ratio = np.exp(math.log(3.0) * (2 * u[:, 10] - 1))
    height, width = np.minimum(1, np.sqrt(area / ratio)), np.minimum(1, np.sqrt(area * ratio))
    # One number gives the position of the box: its digits are split between the two axes.
    position = u[:, 11] * 1024
    top, left = np.floor(position) / 1024 * (1 - height), (position % 1) * (1 - width)
    boxes = np.stack([top, left, top + height, left + width], axis=1) * (u[:, 8] < config.erase)[:, None]
    operations, strengths = np.empty((len(ids), 0), np.int8), np.empty((len(ids), 0), np.float32)
    if config.rand_augment is not None:
        operations, strengths = draw(config.rand_augment, seed, epoch, ids)
    return ViewParameters(
        crops,
        u[:, 4] < config.flip,
        colours.astype(np.float32),
        boxes.astype(np.float32),
        config.scale_jitter is not None,
        operations,
        strengths,
    )


def apply_on_device(images: Tensor, views: ViewParameters) -> Tensor:
    """The batch with all but the crop applied, uint8 [B, C, H, W]; `images` may be changed in place.

    The order is brightness, contrast, saturation, flip, RandAugment, erasing. The three colour changes are one
    linear map per sample, rounded once; only its result is clamped to 0..255. On a CPU, call it from a thread for which
    torch uses one core, such as those of `DecodePool`.

    Args:
        images: uint8 [B, C, H, W], C is 1 or 3, on any device.
        views: parameters of the same B samples.
    """
    if images.numel() == 0:
        return images
    changed = np.flatnonzero(np.any(views.colours != 1, axis=1))
    if len(changed):
        # Blocks that fit into a core's cache.
        block = max(1, _BLOCK_BYTES // images[0].numel()) if images.device.type == "cpu" else len(images)
        for start in range(0, len(images), block):
            piece = slice(start, start + block)
            images[piece] = _adjust_colours(images[piece], views.colours[piece])
    flipped = np.flatnonzero(views.flips)
    if images.device.type == "cpu":
        # NumPy selects rows in a tenth of torch's time. One operation for all rows, because each call passes the
        # interpreter's lock to another decoding thread.
        pixels = images.numpy()
        pixels[flipped] = torch.from_numpy(pixels[flipped]).flip(-1).numpy()
    elif len(flipped):
        rows = on_device(flipped, images.device)
        images[rows] = images[rows].flip(-1)
    if views.operations.size:
        images = rand_augment(images, views.operations, views.strengths)
    if views.boxes.any():
        images = _erase_boxes(images, views.boxes)
    return images


def _adjust_colours(images: Tensor, colours: NDArray[np.float32]) -> Tensor:
    """Brightness b, contrast c and saturation s as one linear map of each pixel p, with grey(p) = luma . p:

        x = b p;   y = c x + (1 - c) mean(grey(x));   z = s y + (1 - s) grey(y)

    so z = s c b p + (1 - s) c b grey(p) + (1 - c) b mean(grey(p)), as luma sums to one.
    """
    device, channels = images.device, images.shape[1]
    luma = _LUMA if channels == 3 else (1.0,)
    # Integer sums have no order, so a sample's mean does not depend on its batch.
    sums = images.sum(dim=(2, 3), dtype=torch.int64).to(torch.float32)
    means = sums / (images.shape[2] * images.shape[3])
    b, c, s = on_device(colours, device).unbind(1)
    if channels == 1:
        s = torch.ones_like(s)
    grey_mean = sum((means[:, i] * luma[i] for i in range(channels)), torch.zeros_like(b))
    per_sample = (slice(None), None, None)
    pixels = images.to(torch.float32)
    # Adding 0.5 makes the truncation to integers round.
    shared = ((1 - c) * b * grey_mean + 0.5)[per_sample]
    if channels == 3:
        grey = pixels[:, 0] * luma[0]
        grey += pixels[:, 1] * luma[1]
        grey += pixels[:, 2] * luma[2]
        shared = grey.mul_(((1 - s) * c * b)[per_sample]).add_(shared)
    pixels.mul_((s * c * b)[:, None, None, None]).add_(shared[:, None])
    return pixels.clamp_(0, 255).to(torch.uint8)


def _erase_boxes(images: Tensor, boxes: NDArray[np.float32]) -> Tensor:
    """Fills each sample's box with the sample's mean colour."""
    height, width = images.shape[-2:]
    edges = np.rint(boxes * np.array([height, width, height, width], np.float32)).astype(np.int64)
    top, left, bottom, right = on_device(edges, images.device)[:, :, None, None].unbind(1)
    y = torch.arange(height, device=images.device)[None, :, None]
    x = torch.arange(width, device=images.device)[None, None, :]
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    means = images.sum(dim=(2, 3), dtype=torch.int64) // (height * width)
    return torch.where(inside[:, None], means.to(torch.uint8)[:, :, None, None], images)
