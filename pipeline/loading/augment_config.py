"""The configuration of the augmentation of training images; augment.py applies it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Config, added, renamed
from pipeline.loading.auto_augment_config import AnyAutoAugmentConfig
from pipeline.pixels.interpolation import Interpolation


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
    interpolation: Interpolation = added(
        "bilinear",
        description="Interpolation with which a crop is scaled to the model's image size. Recipes of vision "
        "transformers use bicubic.",
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
    hue: float = added(
        0.0,
        description="Hue jitter h: the hue is shifted by a random part of the colour circle from -h to h. Grey images "
        "do not change.",
        ge=0,
        le=0.5,
    )
    auto_augment: AnyAutoAugmentConfig | None = renamed(
        None,
        was="rand_augment",
        description="A few random operations per image. {kind: rand_augment}, trivial_augment, auto_augment, augmix "
        "or three_augment; null: none.",
    )
    erase: float = Field(
        0.0, description="Random erasing: probability that a box is filled, see `erase_fill`.", ge=0, le=1
    )
    erase_fill: Literal["mean", "noise"] = added(
        "mean",
        description="Random erasing: what fills the box. mean: the image's mean colour; noise: a random colour for "
        "each pixel, normal with the mean and the deviation of ImageNet.",
    )
    erase_max_area: float = Field(
        0.2, description="Random erasing: maximum area of the box as a fraction of the image.", ge=0.02, le=1
    )

    @property
    def changes_pixel_values(self) -> bool:
        """Whether anything but crop and flip is applied."""
        factors = (self.brightness, self.contrast, self.saturation, self.hue, self.erase)
        return any(factors) or self.auto_augment is not None

    @model_validator(mode="before")
    @classmethod
    def _rand_augment_is_one_of_them(cls, values: Any) -> Any:
        """`rand_augment`, and `auto_augment` without a kind, are RandAugment: it was the only one, without a kind."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        if "rand_augment" in values:
            if values.get("auto_augment") is not None:
                raise ValueError("auto_augment and rand_augment are both set; rand_augment is {kind: rand_augment}")
            values["auto_augment"] = values.pop("rand_augment")
        chosen = values.get("auto_augment")
        if isinstance(chosen, Mapping) and "kind" not in chosen:
            values["auto_augment"] = {"kind": "rand_augment", **chosen}
        return values

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.crop_min_area > self.crop_max_area:
            raise ValueError(f"crop_min_area {self.crop_min_area} is above crop_max_area {self.crop_max_area}")
        if self.scale_jitter is not None and not 1 <= self.scale_jitter[0] <= self.scale_jitter[1] <= 16:
            raise ValueError(f"scale_jitter {list(self.scale_jitter)}: needs 1 <= first <= second <= 16")
        return self
