"""Augmentation depends on (seed, epoch, sample) alone, and does what its names say."""

from __future__ import annotations

from dataclasses import fields
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.loading.augment import ViewParameters, apply_on_device, view_parameters
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.auto_augment_config import RandAugmentConfig
from pipeline.loading.decode import Crop

STRONG = AugmentConfig(crop_min_area=0.3, flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, erase=0.5)
NOISY = STRONG.model_copy(update={"hue": 0.4, "erase_fill": "noise"})
WITH_OPERATIONS = STRONG.model_copy(update={"auto_augment": RandAugmentConfig(), "scale_jitter": (1.2, 2.4)})


def images_of(count: int, channels: int = 3, side: int = 19) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8))


def parameters(count: int, **changed: Any) -> ViewParameters:
    nothing = {
        "config": AugmentConfig(),
        "crops": np.tile([1.0, 1.0, 0.0, 0.0], (count, 1)),
        "flips": np.zeros(count, bool),
        "colours": np.ones((count, 3), np.float32),
        "hues": np.zeros(count, np.float32),
        "boxes": np.zeros((count, 4), np.float32),
        "noise_keys": np.zeros(count, np.int64),
        "operations": np.empty((count, 0), np.int8),
        "magnitudes": np.empty((count, 0), np.float32),
        "weights": np.empty((count, 0), np.float32),
    }
    return ViewParameters(**{**nothing, **changed})


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=20, unique=True), st.integers(0, 2**31), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_parameters_of_a_sample_do_not_depend_on_its_batch(ids: list[int], seed: int, epoch: int) -> None:
    together = view_parameters(WITH_OPERATIONS, seed, epoch, np.array(ids))
    for row, id in enumerate(ids):
        alone = view_parameters(WITH_OPERATIONS, seed, epoch, np.array([id]))
        for name in (field.name for field in fields(ViewParameters) if field.name != "config"):
            np.testing.assert_array_equal(getattr(together, name)[row], getattr(alone, name)[0])


def test_epochs_seeds_and_samples_differ() -> None:
    ids = np.arange(50)
    crops = [view_parameters(STRONG, seed, epoch, ids).crops for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(row) for crop in crops for row in crop}) == 150


@pytest.mark.parametrize("config", [WITH_OPERATIONS, NOISY], ids=["operations", "hue and noise"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_a_sample_do_not_depend_on_its_batch(channels: int, config: AugmentConfig) -> None:
    ids = np.arange(200)
    whole = apply_on_device(images_of(200, channels), view_parameters(config, 7, 3, ids))
    for part in (slice(0, 1), slice(1, 4), slice(37, 101), slice(199, 200)):
        views = view_parameters(config, 7, 3, ids[part])
        alone = apply_on_device(images_of(200, channels)[part].clone(), views)
        assert torch.equal(alone, whole[part])


@pytest.mark.parametrize("config", [WITH_OPERATIONS, NOISY], ids=["operations", "hue and noise"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_do_not_depend_on_their_memory_format(channels: int, config: AugmentConfig) -> None:
    views = view_parameters(config, 7, 3, np.arange(40))
    interleaved = images_of(40, channels).contiguous(memory_format=torch.channels_last)
    assert torch.equal(apply_on_device(interleaved, views), apply_on_device(images_of(40, channels), views))


@pytest.mark.parametrize(("height", "width"), [(400, 357), (300, 900), (512, 512)])
def test_multi_scale_crops_are_vggs(height: int, width: int) -> None:
    """The short side S is drawn from 256 to 512, and a square of 224 / S of it is cut out."""
    views = view_parameters(AugmentConfig(scale_jitter=(256 / 224, 512 / 224)), 0, 0, np.arange(4000))
    boxes = np.array([views.crop(row).box(height, width) for row in range(4000)])
    top, left, box_height, box_width = boxes.T
    np.testing.assert_array_equal(box_height, box_width)
    scaled = min(height, width) * 224 / box_height  # S
    assert 255 <= scaled.min() < 258
    assert 508 < scaled.max() <= 516
    assert abs(scaled.mean() - 384) < 4  # uniform in S and not in area
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()
    assert Crop(1.0, 1.0, 0.0, 0.0, of_square=True).box(300, 200) == (0, 0, 200, 200)


def test_a_scale_jitter_out_of_order_is_refused() -> None:
    with pytest.raises(InputError, match="scale_jitter"):
        parse_config(AugmentConfig, {"scale_jitter": [2.0, 1.5]}, "augment")


def test_parameters_keep_to_their_bounds_and_shares() -> None:
    views = view_parameters(STRONG, 0, 0, np.arange(4000))
    area, ratio, top, left = views.crops.T
    assert 0.3 <= area.min() < 0.31
    assert 0.99 < area.max() <= 1
    assert 0.75 - 1e-9 <= ratio.min() < ratio.max() <= 4 / 3 + 1e-9
    assert min(top.min(), left.min()) >= 0
    assert max(top.max(), left.max()) < 1
    assert abs(views.flips.mean() - 0.5) < 0.03
    assert 0.6 <= views.colours.min() < 0.61
    assert 1.39 < views.colours.max() <= 1.4
    erased = views.boxes[views.boxes.any(axis=1)]
    assert abs(len(erased) / 4000 - 0.5) < 0.03
    assert erased.min() >= 0
    assert erased.max() <= 1
    sizes = (erased[:, 2] - erased[:, 0]) * (erased[:, 3] - erased[:, 1])
    assert sizes.max() <= 0.2 + 1e-6


def test_colour_map_is_brightness_then_contrast_then_saturation() -> None:
    """One step after the other, in double precision, with nothing cut in between."""
    images = images_of(5) // 3 + 60  # Far from 0 and 255, where the cut at the end is all there is.
    colours = np.array([[1.2, 0.8, 1.1], [0.9, 1.1, 0.7], [1, 1.2, 1], [1.1, 1, 1], [1, 1, 0]], np.float32)
    luma = np.array([0.299, 0.587, 0.114])[:, None, None]
    expected = []
    for image, (b, c, s) in zip(images.numpy().astype(np.float64), colours.astype(np.float64), strict=True):
        bright = image * b
        grey_mean = (bright * luma).sum(0).mean()
        contrasted = c * bright + (1 - c) * grey_mean
        expected.append(s * contrasted + (1 - s) * (contrasted * luma).sum(0, keepdims=True))
    result = apply_on_device(images.clone(), parameters(5, colours=colours)).numpy()
    assert np.abs(result - np.array(expected)).max() <= 0.5 + 1e-3


def test_nothing_to_do_changes_nothing() -> None:
    for channels in (1, 3):
        assert torch.equal(apply_on_device(images_of(4, channels), parameters(4)), images_of(4, channels))
    still = AugmentConfig(crop_min_area=1, crop_max_ratio=1, brightness=0, contrast=0, saturation=0)
    views = view_parameters(still, 0, 0, np.arange(4))
    assert torch.equal(apply_on_device(images_of(4), views), images_of(4))
    assert views.crop(0).box(31, 31) == (0, 0, 31, 31)
    assert len(apply_on_device(images_of(0), view_parameters(STRONG, 0, 0, np.arange(0)))) == 0


def test_flip_and_erasing_touch_the_samples_they_name() -> None:
    images = images_of(3, side=20)
    boxes = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0.1, 0.2, 0.5, 0.6]], np.float32)
    result = apply_on_device(images.clone(), parameters(3, flips=np.array([False, True, False]), boxes=boxes))
    assert torch.equal(result[0], images[0])
    assert torch.equal(result[1], images[1].flip(-1))
    painted = images[2].clone()
    painted[:, 2:10, 4:12] = images[2].float().mean(dim=(1, 2)).floor().to(torch.uint8)[:, None, None]
    assert torch.equal(result[2], painted)


@pytest.mark.parametrize("shift", [-0.5, -0.21, 0.03, 1 / 3, 0.5])
def test_a_hue_shift_is_torchvisions(shift: float) -> None:
    images = torch.cat([images_of(4), images_of(1).amax(1, keepdim=True).expand(-1, 3, -1, -1)])  # and a grey image
    shifted = apply_on_device(images.clone(), parameters(5, hues=np.full(5, shift, np.float32)))
    expected = v2.functional.adjust_hue(images, shift)
    assert (shifted.int() - expected.int()).abs().max() <= 1


def test_a_hue_does_not_change_an_image_of_one_channel() -> None:
    images = images_of(3, channels=1)
    shifted = apply_on_device(images.clone(), parameters(3, hues=np.full(3, 0.3, np.float32)))
    assert torch.equal(shifted, images)


def test_hues_are_drawn_evenly_and_leave_the_other_numbers_as_they_were() -> None:
    ids = np.arange(4000)
    views, before = view_parameters(NOISY, 0, 0, ids), view_parameters(STRONG, 0, 0, ids)
    assert -0.4 <= views.hues.min() < -0.39
    assert 0.39 < views.hues.max() <= 0.4
    assert abs(views.hues.mean()) < 0.01
    for name in ("crops", "flips", "colours", "boxes"):
        np.testing.assert_array_equal(getattr(views, name), getattr(before, name))


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_fills_the_box_and_is_normal_with_the_statistics_of_imagenet(channels: int) -> None:
    images, boxes = images_of(8, channels, side=160), np.zeros((8, 4), np.float32)
    boxes[1:] = [0.25, 0.125, 0.75, 0.625]
    config = AugmentConfig(erase=0.5, erase_fill="noise")
    views = parameters(8, config=config, boxes=boxes, noise_keys=np.arange(8) * 12345)
    result = apply_on_device(images.clone(), views)
    assert torch.equal(result[0], images[0])
    kept = torch.ones(160, 160, dtype=torch.bool)
    kept[40:120, 20:100] = False
    assert torch.equal(result[..., kept], images[..., kept])
    noise = result[1:, :, 40:120, 20:100].double()
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if channels == 3 else ([0.449], [0.226])
    # The clamp to 0..255 moves the mean and the deviation by less than two levels.
    assert (noise.mean(dim=(0, 2, 3)) - 255 * torch.tensor(mean).double()).abs().max() < 2
    assert (noise.std(dim=(0, 2, 3)) - 255 * torch.tensor(std).double()).abs().max() < 2.5
    one, other = noise[0, 0].flatten(), noise[1, 0].flatten()
    for first, second in ((one, other), (one[1:], one[:-1]), (noise[0, 0, 1:].flatten(), noise[0, 0, :-1].flatten())):
        assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.06  # 6,400 pixels: sigma 0.0125


def test_noise_of_a_pixel_is_a_hash_of_its_sample_and_position() -> None:
    key, side = 0xDEADBEEF, 12
    config = AugmentConfig(erase=1, erase_fill="noise")
    whole = np.array([[0, 0, 1, 1]], np.float32)
    views = parameters(1, config=config, boxes=whole, noise_keys=np.array([key]))
    noise = apply_on_device(images_of(1, side=side), views)[0].numpy()

    def lowbias32(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
        x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
        return x ^ (x >> 16)

    for channel, y, x in ((0, 0, 0), (0, 3, 11), (1, 5, 2), (2, 11, 11)):
        level = lowbias32(lowbias32((channel * side + y) * side + x) ^ key) % 2**16
        normal = NormalDist((0.485, 0.456, 0.406)[channel], (0.229, 0.224, 0.225)[channel])
        expected = min(255, max(0, 255 * normal.inv_cdf((level + 0.5) / 2**16)))
        assert abs(noise[channel, y, x] - expected) <= 0.5 + 1e-6


def test_wrong_bounds_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"augment: crop_min_area 0.9 is above crop_max_area 0.5"):
        parse_config(AugmentConfig, {"crop_min_area": 0.9, "crop_max_area": 0.5}, "augment")
