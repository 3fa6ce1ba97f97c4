"""The configuration of the augmentation of training images; augment.py and rand_augment.py apply it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pipeline.config import Config


class RandAugmentConfig(Config):
    """RandAugment: the number, strength and probability of its operations."""

    layers: int = Field(2, description="Number of operations applied one after another.", ge=1, le=8)
    magnitude: float = Field(9.0, description="Magnitude of the operations, 0 to 10.", ge=0, le=10)
    magnitude_std: float = Field(
        0.5, description="Standard deviation of the magnitude, which is drawn for each operation.", ge=0, le=10
    )
    probability: float = Field(0.5, description="Probability that an operation is applied.", ge=0, le=1)


class AugmentConfig(Config):
    """Augmentation of training images. The defaults suit drawn images with one centred subject."""

    crop_min_area: float = Field(0.6, description="Random crop: minimum area as a fraction of the image.", gt=0, le=1)
    crop_max_area: float = Field(1.0, description="Random crop: maximum area as a fraction of the image.", gt=0, le=1)
    crop_max_ratio: float = Field(
        4 / 3, description="Random crop: maximum aspect ratio (longer / shorter side). 1: square crops.", ge=1, le=4
    )
    scale_jitter: tuple[float, float] | None = Field(
        None,
        description="Scale jitter as in VGG, instead of crop_*: scale the shorter side to a random multiple of "
        "the model's image size in this range, and crop a square. [1.143, 2.286] is 256 to 512 for "
        "224 pixels. null: use crop_*.",
    )
    flip: float = Field(
        0.0,
        description="Probability of a horizontal flip. Use 0 if left and right differ, e.g. for arrows.",
        ge=0,
        le=1,
    )
    brightness: float = Field(
        0.2, description="Brightness jitter b: scaled by a random factor from 1 - b to 1 + b.", ge=0, lt=1
    )
    contrast: float = Field(
        0.2, description="Contrast jitter c: scaled by a random factor from 1 - c to 1 + c.", ge=0, lt=1
    )
    saturation: float = Field(
        0.2, description="Saturation jitter s: scaled by a random factor from 1 - s to 1 + s.", ge=0, lt=1
    )
    rand_augment: RandAugmentConfig | None = Field(
        None, description="RandAugment: a few random operations per image. null: off."
    )
    erase: float = Field(
        0.0, description="Random erasing: probability that a box is filled with the mean colour.", ge=0, le=1
    )
    erase_max_area: float = Field(
        0.2, description="Random erasing: maximum area of the box as a fraction of the image.", ge=0.02, le=1
    )

    @property
    def changes_pixel_values(self) -> bool:
        """Whether anything but crop and flip is applied."""
        factors = (self.brightness, self.contrast, self.saturation, self.erase)
        return any(factors) or self.rand_augment is not None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.crop_min_area > self.crop_max_area:
            raise ValueError(f"crop_min_area {self.crop_min_area} is above crop_max_area {self.crop_max_area}")
        if self.scale_jitter is not None and not 1 <= self.scale_jitter[0] <= self.scale_jitter[1] <= 16:
            raise ValueError(f"scale_jitter {list(self.scale_jitter)}: needs 1 <= first <= second <= 16")
        return self
