"""The conversion of pixels to a model's input.

Torch is imported only to convert images, so that configs with a `Preprocessing` are read without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
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
        # Without waiting here, a GPU can work on one step while the next is prepared.
        mean, std = (values.to(images.device, non_blocking=True) for values in self.pixel_mean_and_std())
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
    return (images.float() - mean) / std


def _in_words(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.8g}" for value in (values[:1] if len(set(values)) == 1 else values))
