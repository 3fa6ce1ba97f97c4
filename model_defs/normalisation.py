"""The pixel normalisation that trained weights expect: (pixels - mean) / std, for pixels in 0..1."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of the images on which weights were trained.

    For weights it is that of the first convolution's input: after `transform_input` in a net that has it.

    Attributes:
        mean, std: one number per channel.
        origin: where they are stated, as text.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = field(default="", compare=False)

    def for_channels(self, channels: int) -> Normalisation:
        """The normalisation for a convolution fitted to another number of channels: all get the average."""
        there = len(self.mean)
        if there == channels:
            return self
        mean, std = ((sum(values) / there,) * channels for values in (self.mean, self.std))
        return Normalisation(mean, std, self.origin if there == 1 else f"{self.origin}, averaged over {there} channels")


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF_MEAN_STD = Normalisation((0.5,) * 3, (0.5,) * 3)  # pixels in -1..1, as in Google's nets
OPENAI_CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def after_transform_input(given: Normalisation) -> Normalisation:
    """The normalisation of the first convolution's input, if the images of a net with `transform_input` have `given`.

    torchvision's transform_input computes x * s / 0.5 + (m - 0.5) / 0.5 with ImageNet's mean m and std s, which turns
    ImageNet's normalisation into mean 0.5, std 0.5. It computes the same if the images are normalised otherwise.
    """
    given = given.for_channels(3)
    scale, shift = _transform_input()
    std = tuple(s / a for s, a in zip(given.std, scale, strict=True))
    mean = tuple(m - b * s for m, b, s in zip(given.mean, shift, std, strict=True))
    return replace(given, mean=_rounded(mean), std=_rounded(std))


def before_transform_input(expected: Normalisation) -> Normalisation:
    """The normalisation of images from which `transform_input` makes `expected`: inverse of `after_transform_input`."""
    expected = expected.for_channels(3)
    scale, shift = _transform_input()
    std = tuple(s * a for s, a in zip(expected.std, scale, strict=True))
    mean = tuple(m + b * s for m, b, s in zip(expected.mean, shift, expected.std, strict=True))
    return replace(expected, mean=_rounded(mean), std=_rounded(std))


def _transform_input() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Factor and summand of each channel."""
    return tuple(s / 0.5 for s in IMAGENET.std), tuple((m - 0.5) / 0.5 for m in IMAGENET.mean)


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    """The values without rounding errors of float64, so that ImageNet's become exactly 0.5, and vice versa."""
    return tuple(round(value, 12) for value in values)
