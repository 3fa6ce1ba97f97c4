"""The conversion of pixels to a model's input.

Torch is imported only to convert images, so that configs with a `Preprocessing` are read without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """The conversion of pixels to a model's input.

    Attributes:
        image_size: side of the square images in pixels.
        channels: 3 for RGB, 1 for grey.
        mean, std: of each channel, for pixels in [0, 1].
    """

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise InputError(
                f"preprocessing: {len(self.mean)} means and {len(self.std)} deviations for {self.channels} channels"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise InputError(f"preprocessing: mean {self.mean} and std {self.std} must be finite")
        if min(self.std) <= 0:
            raise InputError(f"preprocessing: a standard deviation is {min(self.std)}; it must be above 0")

    @property
    def normalisation(self) -> str:
        """Mean and standard deviation in words; one number where all channels have the same."""
        return f"mean {_in_words(self.mean)} and std {_in_words(self.std)}"

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] to float32, each channel with its mean and std, on the images' device."""
        mean, std = _pixel_mean_and_std(self, images.device)
        if images.is_cpu and not images.is_floating_point() and images.shape[1] > 1 and not images.is_contiguous():
            return _normalise_channels_last(images, mean, std)
        return normalise_pixels(images, mean, std)

    def pixel_mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation for pixels in [0, 255], each [C, 1, 1]."""
        import torch

        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return 255 * mean[:, None, None], 255 * std[:, None, None]


def per_channel(value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    """One number for each channel, from one number for all channels or a sequence with one for each."""
    return (value,) * channels if isinstance(value, int | float) else tuple(value)


def normalise_pixels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """float32 (images - mean) / std, in training and in the registered program."""
    if images.is_floating_point():  # those of the caller, or with a gradient
        return (images.float() - mean) / std
    # In place: a new block for each operation costs up to 25 times as much as its arithmetic on CPUs.
    return images.float().sub_(mean).div_(std)


@lru_cache(maxsize=64)
def _pixel_mean_and_std(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Those of `preprocessing` on a device, made once: 0.1 ms of each step otherwise."""
    import torch

    # For any later use: not of the device, the tracing or the inference mode in which they are first asked for.
    with torch.inference_mode(False), torch.device("cpu"):
        mean, std = preprocessing.pixel_mean_and_std()
        # Without waiting here, a GPU can work on one step while the next is prepared.
        return mean.to(device, non_blocking=True), std.to(device, non_blocking=True)


def _normalise_channels_last(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The same bits as `normalise_pixels`, which computes the few channels of one pixel at a time in this layout."""
    pixels = images.permute(0, 2, 3, 1)
    batch, height, width, channels = pixels.shape
    rows = pixels.reshape(batch * height, width * channels).float()
    rows.sub_(mean.flatten().repeat(width)).div_(std.flatten().repeat(width))
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _in_words(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.8g}" for value in (values[:1] if len(set(values)) == 1 else values))
