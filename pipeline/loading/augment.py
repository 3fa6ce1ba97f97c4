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
from pipeline.loading.auto_augment import Drawn, draw_operations
from pipeline.loading.auto_augment_config import RandAugmentConfig, ThreeAugmentConfig
from pipeline.loading.batch import on_device
from pipeline.loading.decode import Crop
from pipeline.loading.erasing import erase_with_mean, erase_with_noise
from pipeline.loading.hue import shift_hue
from pipeline.loading.image_operations import apply_operations
from pipeline.loading.rand_augment import draw, rand_augment

# Weights of red, green and blue in luminance (ITU-R BT.601, as PIL and torchvision convert to grey).
_LUMA: tuple[float, ...] = (0.299, 0.587, 0.114)
_BLOCK_BYTES = 1 << 18
_PER_SAMPLE_FIELDS = ("crops", "flips", "colours", "hues", "boxes", "noise_keys", "operations", "magnitudes", "weights")


@dataclass(frozen=True)
class ViewParameters:
    """The augmentation of each sample of a batch.

    Attributes:
        config: the augmentation from which it was drawn.
        crops: [B, 4] area, ratio, top, left: see `Crop`.
        flips: bool [B].
        colours: float32 [B, 3]: factors of brightness, contrast, saturation, applied in this order.
        hues: float32 [B], shift of the hue in circles; applied after the colours.
        boxes: float32 [B, 4]: top, left, bottom, right of the erased box, as fractions of the side; all zero:
            no box.
        noise_keys: int64 [B], of the noise that fills the box.
        operations, magnitudes: [B, N] of `config.auto_augment`: of RandAugment see `rand_augment.draw`, of others
            `image_operations.apply_operations`; N is 0 without it.
        weights: [B, 0], or of a mixture, see `apply_operations`.
    """

    config: AugmentConfig
    crops: NDArray[np.float64]
    flips: NDArray[np.bool_]
    colours: NDArray[np.float32]
    hues: NDArray[np.float32]
    boxes: NDArray[np.float32]
    noise_keys: NDArray[np.int64]
    operations: NDArray[np.int8]
    magnitudes: NDArray[np.float32]
    weights: NDArray[np.float32]

    def crop(self, row: int) -> Crop:
        """The crop of one sample of the batch."""
        area, ratio, top, left = self.crops[row].tolist()
        of_square = self.config.scale_jitter is not None
        return Crop(area, ratio, top, left, of_square, self.config.interpolation)

    def select(self, rows: slice) -> ViewParameters:
        """The views of a slice of the batch."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _PER_SAMPLE_FIELDS})

    @classmethod
    def concatenate(cls, views: Sequence[ViewParameters]) -> ViewParameters:
        """The views of several batches, concatenated; all drawn by one config."""
        joined = {name: np.concatenate([getattr(view, name) for view in views]) for name in _PER_SAMPLE_FIELDS}
        return cls(config=views[0].config, **joined)


def view_parameters(config: AugmentConfig, seed: int, epoch: int, ids: NDArray[np.int64]) -> ViewParameters:
    """The parameters of each sample's view in an epoch; they do not depend on the batch."""
    u = uniforms(seed, "view", epoch, ids, 12)
    spans = np.array([config.brightness, config.contrast, config.saturation])
    nothing = np.empty((len(ids), 0), np.float32)
    drawn = Drawn(np.empty((len(ids), 0), np.int8), nothing, nothing)
    if isinstance(config.auto_augment, RandAugmentConfig):
        drawn = Drawn(*draw(config.auto_augment, seed, epoch, ids), nothing)
    elif config.auto_augment is not None:
        drawn = draw_operations(config.auto_augment, seed, epoch, ids)
    hues, noise_keys = np.zeros(len(ids)), np.zeros(len(ids))
    if config.hue:
        hues = config.hue * (2 * uniforms(seed, "hue", epoch, ids, 1)[:, 0] - 1)
    if config.erase and config.erase_fill == "noise":
        noise_keys = uniforms(seed, "erase", epoch, ids, 1)[:, 0] * 2.0**32
    return ViewParameters(
        config=config,
        crops=_crops(config, u[:, :4]),
        flips=u[:, 4] < config.flip,
        colours=(1 + spans * (2 * u[:, 5:8] - 1)).astype(np.float32),
        hues=hues.astype(np.float32),
        boxes=_boxes(config, u[:, 8:12]),
        noise_keys=noise_keys.astype(np.int64),
        **drawn._asdict(),
    )


def _crops(config: AugmentConfig, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area, ratio, top and left of the crops, from random numbers [B, 4]."""
    if config.scale_jitter is None:
        max_log_ratio = math.log(config.crop_max_ratio)
        area = config.crop_min_area + (config.crop_max_area - config.crop_min_area) * u[:, 0]
        ratio = np.exp(max_log_ratio * (2 * u[:, 1] - 1))
    else:
        smallest, largest = config.scale_jitter
        area, ratio = (smallest + (largest - smallest) * u[:, 0]) ** -2.0, np.ones(len(u))
    return np.stack([area, ratio, u[:, 2], u[:, 3]], axis=1)


def _boxes(config: AugmentConfig, u: NDArray[np.float64]) -> NDArray[np.float32]:
    """The erased boxes, from random numbers [B, 4]: whether to erase, area, ratio, position.

    A box covers 0.02 to `erase_max_area` of the image, has an aspect ratio of at most 3:1, and is entirely inside the
    image (Zhong 2020, section 3.2).
    """
    area = 0.02 + (config.erase_max_area - 0.02) * u[:, 1]
    ratio = np.exp(math.log(3.0) * (2 * u[:, 2] - 1))
    height, width = np.minimum(1, np.sqrt(area / ratio)), np.minimum(1, np.sqrt(area * ratio))
    # One number gives the position of the box: its digits are split between the two axes.
    position = u[:, 3] * 1024
    top, left = np.floor(position) / 1024 * (1 - height), (position % 1) * (1 - width)
    boxes = np.stack([top, left, top + height, left + width], axis=1) * (u[:, 0] < config.erase)[:, None]
    return boxes.astype(np.float32)


def apply_on_device(images: Tensor, views: ViewParameters) -> Tensor:
    """The batch with all but the crop applied, uint8 [B, C, H, W]; `images` may be changed in place.

    The order is brightness, contrast, saturation, hue, flip, automatic augmentation, erasing; with 3-Augment the
    colours come after it. The first three are one linear map per sample, rounded once; only its result is clamped to
    0..255. On a CPU, call it from a thread for which
    torch uses one core, such as those of `DecodePool`.

    Args:
        images: uint8 [B, C, H, W], C is 1 or 3, on any device.
        views: parameters of the same B samples.
    """
    if images.numel() == 0:
        return images
    jitters_last = isinstance(views.config.auto_augment, ThreeAugmentConfig)
    if not jitters_last:
        images = _jitter_colours(images, views)
    images = _flip(images, np.flatnonzero(views.flips))
    if isinstance(views.config.auto_augment, RandAugmentConfig):
        images = rand_augment(images, views.operations, views.magnitudes)
    elif views.operations.size:
        images = apply_operations(images, views.operations, views.magnitudes, views.weights)
    if jitters_last:
        images = _jitter_colours(images, views)
    if views.boxes.any():
        if views.config.erase_fill == "noise":
            return erase_with_noise(images, views.boxes, views.noise_keys)
        return erase_with_mean(images, views.boxes)
    return images


def _flip(images: Tensor, flipped: NDArray[np.intp]) -> Tensor:
    if images.device.type == "cpu":
        # NumPy selects rows in a tenth of torch's time. One operation for all rows, because each call passes the
        # interpreter's lock to another decoding thread.
        pixels = images.numpy()
        pixels[flipped] = torch.from_numpy(pixels[flipped]).flip(-1).numpy()
    elif len(flipped):
        rows = on_device(flipped, images.device)
        images[rows] = images[rows].flip(-1)
    return images


def _jitter_colours(images: Tensor, views: ViewParameters) -> Tensor:
    """Brightness, contrast, saturation and hue."""
    changed = np.flatnonzero(np.any(views.colours != 1, axis=1))
    if len(changed):
        # Blocks that fit into a core's cache.
        block = max(1, _BLOCK_BYTES // images[0].numel()) if images.device.type == "cpu" else len(images)
        for start in range(0, len(images), block):
            piece = slice(start, start + block)
            images[piece] = _adjust_colours(images[piece], views.colours[piece])
    if images.shape[1] == 3 and views.hues.any():
        images = _shift_hues(images, views.hues)
    return images


def _shift_hues(images: Tensor, hues: NDArray[np.float32]) -> Tensor:
    if images.device.type != "cpu":
        return shift_hue(images, hues)
    block = max(1, _BLOCK_BYTES // images[0].numel())
    for start in range(0, len(images), block):
        piece = slice(start, start + block)
        images[piece] = shift_hue(images[piece], hues[piece])
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
