"""The configurations of automatic augmentation: a few operations per image, drawn at random; auto_augment.py and
rand_augment.py draw them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config import Config, added


class RandAugmentConfig(Config):
    """RandAugment: the number, strength and probability of its operations."""

    kind: Literal["rand_augment"] = added("rand_augment", description="RandAugment (Cubuk 2020), as in DeiT's recipe.")
    layers: int = Field(2, description="Number of operations applied one after another.", ge=1, le=8)
    magnitude: float = Field(9.0, description="Magnitude of the operations, 0 to 10.", ge=0, le=10)
    magnitude_std: float = Field(
        0.5, description="Standard deviation of the magnitude, which is drawn for each operation.", ge=0, le=10
    )
    probability: float = Field(0.5, description="Probability that an operation is applied.", ge=0, le=1)


class TrivialAugmentConfig(Config):
    """TrivialAugment Wide: it has no parameters."""

    kind: Literal["trivial_augment"] = Field(
        "trivial_augment",
        description="TrivialAugment Wide (Müller 2021): one operation per image, of any strength.",
    )


class AutoAugmentConfig(Config):
    """AutoAugment: 25 pairs of operations that were learned on one data set."""

    kind: Literal["auto_augment"] = Field(
        "auto_augment", description="AutoAugment (Cubuk 2019): one of 25 learned pairs of operations per image."
    )
    learned_on: Literal["imagenet", "cifar10"] = Field(
        "imagenet", description="Data set on which the pairs of operations were learned."
    )


class AugMixConfig(Config):
    """AugMix: a random mixture of the image and several chains of operations on it."""

    kind: Literal["augmix"] = Field(
        "augmix",
        description="AugMix (Hendrycks 2020): a mixture of the image and of several chains of operations on it, "
        "without the paper's consistency loss.",
    )
    severity: int = Field(3, description="Largest magnitude of the operations, 1 to 10.", ge=1, le=10)
    width: int = Field(3, description="Number of chains that are mixed.", ge=1, le=8)
    depth: int = Field(0, description="Number of operations in a chain. 0: drawn from 1 to 3 for each.", ge=0, le=8)
    alpha: float = Field(
        1.0,
        description="Parameter of the Dirichlet and the Beta distribution of the weights in the mixture.",
        ge=0.1,
        le=10,
    )


class ThreeAugmentConfig(Config):
    """3-Augment: grey, inverted highlights or blur; it has no parameters."""

    kind: Literal["three_augment"] = Field(
        "three_augment",
        description="3-Augment (DeiT III, Touvron 2022): grayscale, solarize or Gaussian blur per image, before the "
        "colour jitter, for which the paper has brightness, contrast and saturation of 0.3.",
    )


AnyAutoAugmentConfig = Annotated[
    RandAugmentConfig | TrivialAugmentConfig | AutoAugmentConfig | AugMixConfig | ThreeAugmentConfig,
    Field(discriminator="kind"),
]
