"""The model that a training builds and its input images: size, channels, normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator

from pipeline.config import Config, unkeyed
from pipeline.errors import InputError
from pipeline.preprocessing import Preprocessing, per_channel
from pipeline.training.model_config import ModelConfig

if TYPE_CHECKING:
    from torch import nn

# Used if neither the config nor the weights specify them.
DEFAULT_MEAN, DEFAULT_STD = 0.5, 0.25

# Prefect's form accepts only multiples of 0.01 in an input of `type: number`; this one is entered as JSON.
ChannelNumbers = Annotated[
    float | tuple[float, ...] | None, WithJsonSchema({"not": {"not": {"type": ["number", "array", "null"]}}})
]


class ImageModelConfig(Config):
    """A model, and the size and normalisation of its input images."""

    model: ModelConfig = Field(ModelConfig(), description="The model, and its initial weights.")
    image_size: int = Field(64, ge=8, le=1024, description="Width and height of input images in pixels.")
    channels: int = Field(3, ge=1, le=3, description="Number of input channels: 3 for RGB, 1 for greyscale.")
    mean: ChannelNumbers = Field(
        None,
        description="Normalisation: mean of pixel values in 0..1, one number or one per channel. null: that of the "
        f"pretrained weights, else {DEFAULT_MEAN}.",
    )
    std: ChannelNumbers = Field(
        None,
        description="Normalisation: standard deviation of pixel values in 0..1, one number or one per channel. null: "
        f"that of the pretrained weights, else {DEFAULT_STD}.",
    )
    normalised_as: str = unkeyed("", description="Origin of mean and std; set by the program.")

    @field_validator("channels")
    @classmethod
    def _channels_are_grey_or_rgb(cls, value: int) -> int:
        if value not in (1, 3):
            raise ValueError("must be 3 for RGB or 1 for greyscale")
        return value

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _numbers_are_valid(cls, value: Any, info: ValidationInfo) -> Any:
        """Validates the raw value: pydantic's own check would report one error for each member of the union."""
        if value is None:
            return None
        numbers = [_as_number(number) for number in (value if isinstance(value, list | tuple) else [value])]
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
            raise ValueError(f"give a number, or a list of one for each channel, not {value!r}")
        for number in numbers:
            if not (0 < number <= 1 or (number == 0 and info.field_name == "mean")):
                least = "above 0" if info.field_name == "std" else "at least 0"
                raise ValueError(f"must be {least} and at most 1, for pixels in 0..1, not {number}")
        channels = info.data.get("channels", len(numbers))
        several = isinstance(value, list | tuple)
        if several and len(numbers) != channels:
            channel_count = "1 channel" if channels == 1 else f"{channels} channels"
            raise ValueError(f"{len(numbers)} numbers for {channel_count}; give one number, or one for each channel")
        return tuple(numbers) if several else numbers[0]

    def key_value(self, name: str) -> Any:
        """The value of a field in the artifact key; mean and std are those used, so that equal settings agree."""
        if name not in ("mean", "std") or self.waits_for_weights:
            return super().key_value(name)
        values = getattr(self.preprocessing(), name)
        return values[0] if len(set(values)) == 1 else values

    @property
    def waits_for_weights(self) -> bool:
        """Whether mean or std is still to be read from the pretrained weights."""
        return self.model.pretrained is not None and (self.mean is None or self.std is None)

    def preprocessing(self) -> Preprocessing:
        """The preprocessing that this model expects.

        Raises:
            InputError: mean or std is still to be read from the pretrained weights.
        """
        if self.waits_for_weights:
            raise InputError(
                f"model.pretrained is {self.model.pretrained!r}, and mean or std is not set: set both, or pass what"
                " import_weights' with_normalisation makes of the config"
            )
        return Preprocessing(
            image_size=self.image_size,
            channels=self.channels,
            mean=per_channel(DEFAULT_MEAN if self.mean is None else self.mean, self.channels),
            std=per_channel(DEFAULT_STD if self.std is None else self.std, self.channels),
        )

    def build_model(self, classes: int) -> nn.Module:
        """The model with random initial weights, which depend on torch's seed."""
        return self.model.build(num_classes=classes, in_chans=self.channels, img_size=self.image_size)

    def model_kwargs(self, classes: int) -> dict[str, Any]:
        """The arguments, besides the name, with which `create_model` builds the model."""
        return {
            **self.model.kwargs,
            "num_classes": classes,
            "in_chans": self.channels,
            "img_size": self.image_size,
        }

    @property
    def normalisation(self) -> str:
        """Mean and std, and their origin, as text."""
        return f"{self.preprocessing().normalisation} ({self.normalised_as or 'set in the config'})"


def _as_number(value: Any) -> Any:
    """Converts a number in a string (YAML reads 2e-1 as one) to float; returns anything else unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
