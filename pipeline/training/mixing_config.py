"""The configuration of mixup and CutMix; mixing.py applies it."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Config, added


class MixingConfig(Config):
    """Mixup and CutMix, on pairs of images of a batch."""

    mixup: float = Field(
        0.0, ge=0, le=10, description="Alpha of mixup: the mixing weight is drawn from Beta(alpha, alpha). 0: no mixup."
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Alpha of CutMix: the area is drawn from Beta(alpha, alpha). 0: no CutMix. If both are set, a "
        "mixed batch uses one of them.",
    )
    probability: float = Field(1.0, ge=0, le=1, description="Probability that a batch is mixed.")
    cutmix_probability: float = added(
        0.5, ge=0, le=1, description="If mixup and CutMix are on: probability that a mixed batch uses CutMix."
    )
    off_epochs: float = added(
        0,
        ge=0,
        le=100_000,
        description="Number of epochs at the end of the training without mixing. 0: mix throughout.",
    )

    @property
    def is_on(self) -> bool:
        """Whether any batch may be mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)
