"""The pixel normalisation that trained weights expect: (pixels - mean) / std, for pixels in 0..1."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation by which images were normalised when weights were trained.

    Attributes:
        mean, std: one number per channel.
        origin: where they are stated, as text.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = field(default="", compare=False)

    def for_channels(self, channels: int) -> Normalisation:
        """For a first convolution fitted to another number of channels: each channel gets the average of all."""
        there = len(self.mean)
        if there == channels:
            return self
        mean, std = ((sum(values) / there,) * channels for values in (self.mean, self.std))
        return Normalisation(mean, std, self.origin if there == 1 else f"{self.origin}, averaged over {there} channels")


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = Normalisation((0.5,) * 3, (0.5,) * 3)  # pixels in -1..1, as in Google's nets
OPENAI_CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
