"""TrivialAugment, AutoAugment, AugMix and 3-Augment: which operations are applied to an image, and how strongly.

The draws are a function of (seed, epoch, sample) alone. Operations and magnitudes are those of
torchvision.transforms.v2, whose AutoAugment has the published policies of Cubuk 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from pipeline.counter_rng import uniforms
from pipeline.loading.auto_augment_config import (
    AugMixConfig,
    AutoAugmentConfig,
    ThreeAugmentConfig,
    TrivialAugmentConfig,
)
from pipeline.loading.image_operations import OPERATIONS

OperationsConfig = TrivialAugmentConfig | AutoAugmentConfig | AugMixConfig | ThreeAugmentConfig
_NUMBERS = {name: number for number, name in enumerate(OPERATIONS)}
_MAX_DEPTH = 3  # of a chain of AugMix whose depth is drawn

# An operation and its probability and magnitude, 0 to 9; no magnitude: None. Cubuk 2019, tables 9 and 7.
_Step = tuple[str, float, int | None]
_Pairs = tuple[tuple[_Step, _Step], ...]
IMAGENET: _Pairs = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, None)),
    (("equalize", 0.8, None), ("equalize", 0.6, None)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, None), ("solarize", 0.2, 4)),
    (("equalize", 0.4, None), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, None)),
    (("posterize", 0.8, 5), ("equalize", 1.0, None)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, None), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, None)),
    (("equalize", 0.0, None), ("equalize", 0.8, None)),
    (("invert", 0.6, None), ("equalize", 1.0, None)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, None)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, None)),
    (("color", 0.4, 0), ("equalize", 0.6, None)),
    (("equalize", 0.4, None), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, None)),
    (("invert", 0.6, None), ("equalize", 1.0, None)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, None), ("equalize", 0.6, None)),
)
CIFAR10: _Pairs = (
    (("invert", 0.1, None), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, None), ("equalize", 0.9, None)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, None), ("equalize", 0.5, None)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, None), ("auto_contrast", 0.4, None)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, None)),
    (("equalize", 0.2, None), ("auto_contrast", 0.6, None)),
    (("equalize", 0.2, None), ("equalize", 0.6, None)),
    (("color", 0.9, 9), ("equalize", 0.6, None)),
    (("auto_contrast", 0.8, None), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, None)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, None), ("solarize", 0.8, 3)),
    (("equalize", 0.8, None), ("invert", 0.1, None)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, None)),
)


class Drawn(NamedTuple):
    """The operations of a batch, see `image_operations.apply_operations`."""

    operations: NDArray[np.int8]
    magnitudes: NDArray[np.float32]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Space:
    """Operations with their magnitudes.

    Attributes:
        names: positions in `OPERATIONS`; -1 is no operation.
        magnitudes: [operations, bins], 0 for an operation without one.
        signed: whether the sign is drawn.
    """

    numbers: NDArray[np.int8]
    magnitudes: NDArray[np.float32]
    signed: NDArray[np.bool_]

    def pick(
        self, which: NDArray[np.intp], bins: NDArray[np.intp], u: NDArray[np.float64]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Operations and magnitudes; u < 0.5 is a negative sign."""
        sign = np.where(self.signed[which] & (u < 0.5), np.float32(-1), np.float32(1))
        return self.numbers[which], self.magnitudes[which, bins] * sign


def draw_operations(config: OperationsConfig, seed: int, epoch: int, ids: NDArray[np.int64]) -> Drawn:
    """The operations of each sample's view in an epoch; they do not depend on the batch."""
    if isinstance(config, AugMixConfig):
        return _draw_mixture(config, seed, epoch, ids)
    no_weights = np.empty((len(ids), 0), np.float32)
    if isinstance(config, TrivialAugmentConfig):
        space, u = trivial_space(), uniforms(seed, "trivial-augment", epoch, ids, 3)
        numbers, magnitudes = space.pick(_below(u[:, 0], len(space.numbers)), _below(u[:, 1], 31), u[:, 2])
        return Drawn(numbers[:, None], magnitudes[:, None], no_weights)
    if isinstance(config, AutoAugmentConfig):
        return Drawn(
            *_draw_pair(IMAGENET if config.learned_on == "imagenet" else CIFAR10, seed, epoch, ids), no_weights
        )
    u = uniforms(seed, "three-augment", epoch, ids, 2)
    chosen = _below(u[:, 0], 3)
    numbers = np.array([_NUMBERS[name] for name in ("grayscale", "solarize", "blur")], np.int8)[chosen]
    # Half of white: PIL inverts values from 128. The deviations of the blur are those of DeiT III's code.
    magnitudes = np.choose(chosen, [0.0, 127.5, 0.1 + 1.9 * u[:, 1]]).astype(np.float32)
    return Drawn(numbers[:, None], magnitudes[:, None], no_weights)


@lru_cache
def trivial_space() -> Space:
    """TrivialAugment's "Wide" space, 31 magnitudes (Müller 2021, table 1)."""
    return _space(31, shear=0.99, move=("shift", 32.0), degrees=135.0, factor=0.99, bits=(8, 6), others=("identity",))


@lru_cache
def auto_space() -> Space:
    """AutoAugment's space, 10 magnitudes (Cubuk 2019, table 6)."""
    return _space(
        10, shear=0.3, move=("translate", 150 / 331), degrees=30.0, factor=0.9, bits=(8, 4), others=("invert",)
    )


@lru_cache
def mixture_space() -> Space:
    """AugMix's space with all operations, 10 magnitudes (Hendrycks 2020)."""
    return _space(10, shear=0.3, move=("translate", 1 / 3), degrees=30.0, factor=0.9, bits=(4, 4), others=())


def _space(
    bins: int,
    *,
    shear: float,
    move: tuple[str, float],
    degrees: float,
    factor: float,
    bits: tuple[int, int],
    others: tuple[str, ...],
) -> Space:
    """The space with these largest magnitudes; `bits` are those kept at magnitude 0, and how many fewer at the last."""
    part = np.linspace(0, 1, bins)
    signed = {
        **{f"shear_{axis}": shear * part for axis in "xy"},
        **{f"{move[0]}_{axis}": move[1] * part for axis in "xy"},
        "rotate": degrees * part,
        **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), factor * part),
    }
    nothing = np.zeros(bins)
    unsigned = {
        "posterize": np.round(bits[0] - bits[1] * part),
        "solarize": 255 * (1 - part),
        **dict.fromkeys(("auto_contrast", "equalize", *others), nothing),
    }
    numbers = [_NUMBERS.get(name, -1) for name in (*signed, *unsigned)]
    magnitudes = np.array([*signed.values(), *unsigned.values()], np.float32)
    return Space(np.array(numbers, np.int8), magnitudes, np.arange(len(numbers)) < len(signed))


def _draw_pair(
    pairs: _Pairs, seed: int, epoch: int, ids: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    space = auto_space()
    position = {int(number): row for row, number in enumerate(space.numbers)}
    which = np.array([[position[_NUMBERS[name]] for name, _, _ in pair] for pair in pairs])
    probability = np.array([[step[1] for step in pair] for pair in pairs])
    bins = np.array([[step[2] or 0 for step in pair] for pair in pairs])
    u = uniforms(seed, "auto-augment", epoch, ids, 5)
    chosen = _below(u[:, 0], len(pairs))
    numbers, magnitudes = space.pick(which[chosen], bins[chosen], u[:, 3:5])
    return np.where(u[:, 1:3] < probability[chosen], numbers, np.int8(-1)), magnitudes


def _draw_mixture(config: AugMixConfig, seed: int, epoch: int, ids: NDArray[np.int64]) -> Drawn:
    space, width, depth = mixture_space(), config.width, config.depth or _MAX_DEPTH
    shape = (len(ids), width, depth)
    u = uniforms(seed, "augmix", epoch, ids, 3 * width * depth).reshape(*shape, 3)
    numbers, magnitudes = space.pick(
        _below(u[..., 0], len(space.numbers)), _below(u[..., 1], config.severity), u[..., 2]
    )
    v = uniforms(seed, "augmix-weights", epoch, ids, 2 * width + 2)
    if not config.depth:
        depths = 1 + _below(v[:, :width], _MAX_DEPTH)
        numbers = np.where(np.arange(depth) < depths[..., None], numbers, np.int8(-1))
    # Independent gamma variables divided by their sum have a Dirichlet distribution, two of them a Beta distribution.
    gamma = np.maximum(gammaincinv(config.alpha, v[:, width:]), 1e-300)
    of_chains = gamma[:, :width] / gamma[:, :width].sum(axis=1, keepdims=True)
    of_image = gamma[:, width] / gamma[:, width:].sum(axis=1)
    weights = np.concatenate([of_image[:, None], (1 - of_image)[:, None] * of_chains], axis=1)
    flat = (len(ids), width * depth)
    return Drawn(numbers.reshape(flat), magnitudes.reshape(flat), weights.astype(np.float32))


def _below(u: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Integers from 0 to count - 1."""
    return (u * count).astype(np.intp)
