"""RandAugment: PIL's operations on batches, and every draw a function of (seed, epoch, sample)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pipeline.counter_rng import generator
from pipeline.loading.auto_augment_config import RandAugmentConfig
from pipeline.loading.rand_augment import OPERATIONS, draw, rand_augment

CONFIG = RandAugmentConfig()
NAMES = list(OPERATIONS)


def images_of(count: int, channels: int = 3, height: int = 20, width: int = 24) -> torch.Tensor:
    """Smooth noise that leaves some values out, so that stretching and flattening have something to do."""
    rough = generator(1, "rand-augment-test", channels).integers(30, 200, (count, channels, 5, 6), dtype=np.uint8)
    return torch.nn.functional.interpolate(torch.from_numpy(rough), size=(height, width), mode="bilinear")


def pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


PEERS = {
    "auto_contrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "invert": lambda image, s: ImageOps.invert(image),
    "posterize": lambda image, s: image.point(lambda v: v & ~((1 << (4 + int(abs(s) * 4))) - 1)),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 - int(abs(s) * 256)),
    "solarize_add": lambda image, s: image.point(lambda v: min(255, v + int(abs(s) * 110)) if v < 128 else v),
    "color": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("strength", [-0.8, 0.35, 1.0])
def test_an_operation_is_pils(name: str, strength: float) -> None:
    images = images_of(3)
    done = OPERATIONS[name](images.clone(), torch.full((3, 1, 1, 1), strength))
    for row in range(3):
        expected = np.asarray(PEERS[name](pil(images[row]), strength)).astype(int)
        assert np.abs(done[row].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1, name


def test_smoothing_is_pils_filter() -> None:
    image = images_of(1)
    smooth = OPERATIONS["sharpness"](image, torch.full((1, 1, 1, 1), -1 / 0.9))
    expected = np.asarray(pil(image[0]).filter(ImageFilter.SMOOTH)).astype(int)
    assert np.abs(smooth[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_a_quarter_turn_of_the_matrix_is_a_quarter_turn() -> None:
    image = images_of(1, height=16, width=16)
    turned = OPERATIONS["rotate"](image, torch.full((1, 1, 1, 1), 3.0))  # 3 x 30 degrees
    expected = torch.rot90(image, 1, (-2, -1)), torch.rot90(image, -1, (-2, -1))
    assert min((turned.int() - one.int()).abs().max().item() for one in expected) <= 1


def test_a_translation_moves_by_whole_pixels_and_fills_with_grey() -> None:
    image = images_of(1, height=20, width=20)
    moved = OPERATIONS["translate_x"](image, torch.full((1, 1, 1, 1), 5 / (20 * 0.45)))
    assert (moved[..., :15].int() - image[..., 5:].int()).abs().max() <= 1
    assert (moved[..., 15:] == 128).all()


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("auto_contrast", "equalize", "invert", "posterize")])
def test_no_strength_changes_nothing(name: str) -> None:
    image = images_of(2)
    assert (OPERATIONS[name](image.clone(), torch.zeros(2, 1, 1, 1)).int() - image.int()).abs().max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_has_the_same_bits_in_any_batch(channels: int) -> None:
    ids = np.arange(90)
    whole = rand_augment(images_of(90, channels), *draw(CONFIG, 7, 3, ids))
    for part in (slice(0, 1), slice(5, 9), slice(40, 90)):
        alone = rand_augment(images_of(90, channels)[part].clone(), *draw(CONFIG, 7, 3, ids[part]))
        assert torch.equal(alone, whole[part])


def test_operations_are_drawn_evenly_and_with_their_probability() -> None:
    operations, strengths = draw(CONFIG, 0, 0, np.arange(20_000))
    applied = operations[operations >= 0]
    assert abs(len(applied) / operations.size - 0.5) < 0.01
    counts = np.bincount(applied, minlength=len(NAMES))
    assert np.abs(counts / len(applied) - 1 / len(NAMES)).max() < 0.01
    assert abs(np.abs(strengths).mean() - 0.9) < 0.01
    assert 0.03 < np.abs(strengths).std() < 0.06
    assert abs((strengths > 0).mean() - 0.5) < 0.01


def test_epochs_differ() -> None:
    ids = np.arange(100)
    assert not np.array_equal(draw(CONFIG, 0, 0, ids)[0], draw(CONFIG, 0, 1, ids)[0])
