"""Mixup and CutMix: a training image is blended with its neighbour in the global batch, and so is its label.

Row 2i is mixed with row 2i + 1 and vice versa (pipeline/loading/pairs.py), with a weight drawn from (seed, step). So a
mixed batch is reproducible, and has the same mixtures on any number of workers and in any micro-batches.

Sources: Zhang 2018, "mixup: Beyond Empirical Risk Minimization"; Yun 2019, "CutMix". As in DeiT, one weight
per batch; unlike DeiT, partners are neighbours and not the reversed batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pipeline import counter_rng
from pipeline.training.mixing_config import MixingConfig


@dataclass(frozen=True)
class Mix:
    """The mixture of one batch.

    Attributes:
        weight: fraction of the result that comes from the image itself; the rest comes from its partner.
        centre: centre (y, x) of the pasted box, as fractions of the sides; None: the images are blended.
    """

    weight: float
    centre: tuple[float, float] | None = None

    def apply(self, images: Tensor, partners: Tensor) -> tuple[Tensor, float]:
        """Mixed images, and the fraction of each that comes from the image itself.

        The fraction differs from `weight` if the box is clipped or rounded.

        Args:
            images: float [B, C, H, W].
            partners: the partner of each image, of the same shape and of any type.
        """
        if self.centre is None:
            return images.lerp(partners.to(images.dtype), 1.0 - self.weight), self.weight
        height, width = images.shape[-2:]
        half = float(np.sqrt(1.0 - self.weight)) / 2
        top, bottom = _box_edges(self.centre[0], half, height)
        left, right = _box_edges(self.centre[1], half, width)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed, 1.0 - (bottom - top) * (right - left) / (height * width)


def draw_mix(config: MixingConfig, seed: int, step: int) -> Mix | None:
    """The mixture for the batch of a step; None if it is not mixed."""
    if not config.is_on:
        return None
    rng = counter_rng.generator(seed, "mixing", step)
    # The first two numbers decide whether to mix, and by which method.
    applied, chosen, top, left = rng.uniform(size=4)
    if applied >= config.probability:
        return None
    cut = config.cutmix > 0 and (config.mixup == 0 or chosen < config.cutmix_probability)
    alpha = config.cutmix if cut else config.mixup
    return Mix(float(rng.beta(alpha, alpha)), (float(top), float(left)) if cut else None)


def _box_edges(centre: float, half: float, side: int) -> tuple[int, int]:
    return round(max(0.0, centre - half) * side), round(min(1.0, centre + half) * side)
