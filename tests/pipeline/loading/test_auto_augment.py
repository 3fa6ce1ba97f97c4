"""Automatic augmentation: torchvision's operations, magnitudes and policies, drawn by (seed, epoch, sample)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

from pipeline.config import Config, canonical_json, committed_config, parse_config
from pipeline.counter_rng import generator
from pipeline.errors import InputError
from pipeline.loading.augment import apply_on_device, view_parameters
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.auto_augment import (
    CIFAR10,
    IMAGENET,
    auto_space,
    draw_operations,
    mixture_space,
    trivial_space,
)
from pipeline.loading.auto_augment_config import (
    AugMixConfig,
    AutoAugmentConfig,
    RandAugmentConfig,
    ThreeAugmentConfig,
    TrivialAugmentConfig,
)
from pipeline.loading.image_operations import OPERATIONS, apply_operations

KINDS: dict[str, Any] = {
    "trivial_augment": TrivialAugmentConfig(),
    "auto_augment": AutoAugmentConfig(),
    "auto_augment of CIFAR-10": AutoAugmentConfig(learned_on="cifar10"),
    "augmix": AugMixConfig(),
    "three_augment": ThreeAugmentConfig(),
}
NAMES = list(OPERATIONS)
PEER_NAMES = {
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateX": "translate_x",
    "TranslateY": "translate_y",
    "Rotate": "rotate",
    "Brightness": "brightness",
    "Color": "color",
    "Contrast": "contrast",
    "Sharpness": "sharpness",
    "Posterize": "posterize",
    "Solarize": "solarize",
    "AutoContrast": "auto_contrast",
    "Equalize": "equalize",
    "Invert": "invert",
}


def images_of(count: int, channels: int = 3, height: int = 37, width: int = 44) -> torch.Tensor:
    """Smooth noise that leaves some values out, so that stretching and flattening have something to do."""
    rough = generator(2, "auto-augment-test", channels).integers(20, 220, (count, channels, 6, 7), dtype=np.uint8)
    return torch.nn.functional.interpolate(torch.from_numpy(rough), size=(height, width), mode="bilinear")


def pil(image: torch.Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def planes(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def applied(name: str, magnitude: float, images: torch.Tensor) -> np.ndarray:
    """The operation on every image, as the decoding threads apply it."""
    numbers = np.full((len(images), 1), NAMES.index(name), np.int8)
    magnitudes = np.full((len(images), 1), magnitude, np.float32)
    return apply_operations(images.clone(), numbers, magnitudes, np.empty((len(images), 0), np.float32)).numpy()


def cases(peer: Any, bins: int, *, pixels: bool = False) -> list[Any]:
    """Every operation of a transform of torchvision, at some of its magnitudes."""
    found = []
    for theirs, (magnitudes_of, signed) in peer._AUGMENTATION_SPACE.items():
        if theirs == "Identity":
            continue
        magnitudes = magnitudes_of(bins, 37, 44)
        ours = PEER_NAMES[theirs].replace("translate", "shift") if pixels else PEER_NAMES[theirs]
        positions = [0] if magnitudes is None else sorted({0, 1, bins // 3, bins - 1})
        for at in positions:
            for sign in (1, -1) if signed else (1,):
                magnitude = 0.0 if magnitudes is None else sign * float(magnitudes[at])
                if theirs == "Posterize" and magnitude < 1:
                    continue  # torchvision refuses 0 bits on PIL images
                found.append(pytest.param(peer, theirs, ours, magnitude, at, sign, id=f"{theirs}-{at}-{sign}"))
    return found


SPACES = {v2.TrivialAugmentWide: trivial_space, v2.AutoAugment: auto_space, v2.AugMix: mixture_space}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("peer", "theirs", "ours", "magnitude", "position", "sign"),
    [*cases(v2.TrivialAugmentWide, 31, pixels=True), *cases(v2.AutoAugment, 10), *cases(v2.AugMix, 10)],
)
def test_an_operation_at_a_magnitude_is_torchvisions(
    peer: Any, theirs: str, ours: str, magnitude: float, position: int, sign: int, channels: int
) -> None:
    space = SPACES[peer]()
    row = space.numbers.tolist().index(NAMES.index(ours))
    number, drawn = space.pick(np.array([row]), np.array([position]), np.array([0.75 if sign > 0 else 0.25]))
    assert NAMES[number[0]] == ours
    images = images_of(2, channels)
    result = applied(ours, float(drawn[0]), images)
    transform = peer(interpolation=InterpolationMode.BILINEAR, fill=128)
    for image, ours_of_image in zip(images, result, strict=True):
        expected = transform._apply_image_or_video_transform(
            pil(image), theirs, magnitude, interpolation=InterpolationMode.BILINEAR, fill=transform._fill
        )
        distance = np.abs(ours_of_image.astype(int) - planes(expected))
        if theirs == "Solarize":  # at the threshold itself, rounding decides whether torchvision inverts a value
            distance[np.abs(image - 255 * magnitude) < 0.01] = 0
        assert distance.max() <= 1


@pytest.mark.parametrize(("peer", "bins"), [(v2.TrivialAugmentWide, 31), (v2.AutoAugment, 10), (v2.AugMix, 10)])
def test_a_space_has_torchvisions_operations_and_nothing_else(peer: Any, bins: int) -> None:
    space = SPACES[peer]()
    names = [NAMES[number].replace("shift", "translate") if number >= 0 else "identity" for number in space.numbers]
    assert sorted(names) == sorted({"Identity": "identity", **PEER_NAMES}[name] for name in peer._AUGMENTATION_SPACE)
    for theirs, (_, signed) in peer._AUGMENTATION_SPACE.items():
        assert space.signed[names.index({"Identity": "identity", **PEER_NAMES}[theirs])] == signed
    assert space.magnitudes.shape == (len(names), bins)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(IMAGENET, AutoAugmentPolicy.IMAGENET), (CIFAR10, AutoAugmentPolicy.CIFAR10)]
)
def test_the_learned_pairs_are_torchvisions(ours: Any, theirs: AutoAugmentPolicy) -> None:
    expected = v2.AutoAugment(theirs)._policies
    assert [list(pair) for pair in ours] == [
        [(PEER_NAMES[name], probability, magnitude) for name, probability, magnitude in pair] for pair in expected
    ]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("magnitude", [-0.9, -0.2, 0.0, 0.31, 0.8])
def test_a_gpus_arithmetic_gives_the_image_of_a_cpu(name: str, magnitude: float, channels: int) -> None:
    scale = {"rotate": 130.0, "shift_x": 30.0, "shift_y": 30.0, "posterize": 8.0, "blur": 2.0}.get(name, 1.0)
    if name in ("posterize", "solarize", "blur"):
        magnitude = abs(magnitude)
    images, value = (
        images_of(4, channels),
        np.float32(round(8 * magnitude) if name == "posterize" else scale * magnitude),
    )
    if name == "blur":
        value = max(value, np.float32(0.1))
    on_cpu = applied(name, float(value), images).astype(int)
    on_gpu = OPERATIONS[name].of_batch(images.clone(), torch.full((4, 1, 1, 1), float(value))).numpy()
    off = np.abs(on_gpu.astype(int) - on_cpu)
    # The coordinates of a rotation or a shear are rounded, which moves a border pixel in or out of the image.
    assert (off > 2).mean() < (1e-2 if name in ("rotate", "shear_x", "shear_y") else 1e-9)
    assert off.mean() < 0.6


def test_the_operations_of_3_augment_are_deits() -> None:
    images = images_of(300)
    drawn = draw_operations(ThreeAugmentConfig(), 0, 0, np.arange(300))
    result = apply_operations(images.clone(), drawn.operations, drawn.magnitudes, drawn.weights)
    seen = {"grayscale": 0, "solarize": 0, "blur": 0}
    for row, image in enumerate(images):
        name, magnitude = NAMES[drawn.operations[row, 0]], float(drawn.magnitudes[row, 0])
        expected = {
            "grayscale": lambda x: ImageOps.grayscale(x).convert("RGB"),
            "solarize": lambda x: ImageOps.solarize(x, 128),
            "blur": lambda x, radius=magnitude: x.filter(ImageFilter.GaussianBlur(radius)),
        }[name](pil(image))
        np.testing.assert_array_equal(result[row].numpy(), planes(expected))
        assert name != "blur" or 0.1 <= magnitude <= 2
        seen[name] += 1
    assert min(seen.values()) > 75  # 100 each, sigma 8


def test_3_augment_comes_before_the_colour_jitter() -> None:
    """Solarize, then brightness: of the paper's code; the other way round the image differs."""
    plain = {"crop_min_area": 1, "crop_max_ratio": 1, "contrast": 0, "saturation": 0}
    config = AugmentConfig(**plain, brightness=0.3, auto_augment=ThreeAugmentConfig())
    views = view_parameters(config, 0, 0, np.arange(60))
    images = images_of(60)
    result = apply_on_device(images.clone(), views).numpy().astype(int)
    first = apply_operations(images.clone(), views.operations, views.magnitudes, views.weights).numpy()
    factors = views.colours[:, :1, None, None].astype(float)
    assert np.abs(result - np.clip(first * factors, 0, 255)).max() <= 0.51


def test_trivial_augment_draws_operations_and_magnitudes_evenly() -> None:
    drawn = draw_operations(TrivialAugmentConfig(), 0, 0, np.arange(60_000))
    names = np.array([*NAMES, "identity"])[drawn.operations[:, 0]]
    found, counts = np.unique(names, return_counts=True)
    assert len(found) == 14
    assert np.abs(counts / 60_000 - 1 / 14).max() < 0.005
    degrees = drawn.magnitudes[names == "rotate", 0]
    values, counts = np.unique(np.abs(degrees).round(3), return_counts=True)
    np.testing.assert_allclose(values, np.linspace(0, 135, 31), atol=1e-3)
    assert np.abs(counts / counts.sum() - 1 / 31).max() < 0.02
    assert abs((degrees > 0).mean() - 0.5) < 0.04


def test_auto_augment_applies_the_steps_of_a_pair_with_their_probabilities() -> None:
    drawn = draw_operations(AutoAugmentConfig(), 0, 0, np.arange(100_000))
    expected = dict.fromkeys(NAMES, 0.0)
    for pair in IMAGENET:
        for name, probability, _ in pair:
            expected[name] += probability / 25
    for name, rate in expected.items():
        assert abs((drawn.operations == NAMES.index(name)).sum() / 100_000 - rate) < 0.01, name
    pairs = {(NAMES[one], NAMES[other]) for one, other in drawn.operations if min(one, other) >= 0}
    assert pairs <= {(pair[0][0], pair[1][0]) for pair in IMAGENET}


@pytest.mark.parametrize(("width", "alpha"), [(3, 1.0), (4, 0.3), (1, 5.0)])
def test_the_weights_of_augmix_are_a_beta_times_a_dirichlet(width: int, alpha: float) -> None:
    drawn = draw_operations(AugMixConfig(width=width, alpha=alpha), 0, 0, np.arange(50_000))
    of_image, of_chains = drawn.weights[:, 0].astype(float), drawn.weights[:, 1:].astype(float)
    np.testing.assert_allclose(drawn.weights.sum(axis=1), 1, atol=1e-6)
    assert abs(of_image.mean() - 0.5) < 0.01
    assert abs(of_image.var() - 1 / (4 * (2 * alpha + 1))) < 0.005  # of Beta(alpha, alpha)
    parts = of_chains / of_chains.sum(axis=1, keepdims=True).clip(1e-30)
    parts = parts[of_image < 0.999]
    variance = (1 / width) * (1 - 1 / width) / (width * alpha + 1)  # of a symmetric Dirichlet
    assert np.abs(parts.mean(axis=0) - 1 / width).max() < 0.01
    assert np.abs(parts.var(axis=0) - variance).max() < 0.005


def test_augmix_is_the_weighted_mean_of_the_image_and_its_chains() -> None:
    config, images = AugMixConfig(severity=8, width=2, depth=2), images_of(20)
    drawn = draw_operations(config, 3, 1, np.arange(20))
    result = apply_operations(images.clone(), drawn.operations, drawn.magnitudes, drawn.weights).numpy().astype(int)
    for row in range(20):
        mixture = drawn.weights[row, 0] * images[row].numpy().astype(float)
        for chain in range(2):
            image = images[row : row + 1]
            for step in range(2 * chain, 2 * chain + 2):
                name = NAMES[drawn.operations[row, step]]
                image = torch.from_numpy(applied(name, float(drawn.magnitudes[row, step]), image))
            mixture += drawn.weights[row, 1 + chain] * image[0].numpy()
        assert np.abs(result[row] - np.floor(mixture)).max() <= 1


def test_the_chains_of_augmix_have_one_to_three_operations_up_to_the_severity() -> None:
    drawn = draw_operations(AugMixConfig(severity=4), 0, 0, np.arange(20_000))
    depths = (drawn.operations.reshape(20_000, 3, 3) >= 0).sum(axis=2)
    assert np.abs(np.bincount(depths.ravel(), minlength=4)[1:] / 60_000 - 1 / 3).max() < 0.01
    degrees = np.abs(drawn.magnitudes[drawn.operations == NAMES.index("rotate")])
    np.testing.assert_allclose(np.unique(degrees.round(3)), 30 / 9 * np.arange(4), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_a_sample_do_not_depend_on_its_batch(kind: str, channels: int) -> None:
    config, ids = AugmentConfig(auto_augment=KINDS[kind]), np.arange(90)
    whole = apply_on_device(images_of(90, channels), view_parameters(config, 7, 3, ids))
    for part in (slice(0, 1), slice(5, 9), slice(40, 90)):
        alone = apply_on_device(images_of(90, channels)[part].clone(), view_parameters(config, 7, 3, ids[part]))
        assert torch.equal(alone, whole[part])


@pytest.mark.parametrize("kind", KINDS)
def test_most_images_change_and_epochs_differ(kind: str) -> None:
    images, ids = images_of(60), np.arange(60)
    plain = {"brightness": 0, "contrast": 0, "saturation": 0}
    config = AugmentConfig(**plain, auto_augment=KINDS[kind])
    one, other = (apply_on_device(images.clone(), view_parameters(config, 0, epoch, ids)) for epoch in (0, 1))
    changed = (one != images).flatten(1).any(1).float().mean()
    assert changed > 0.7
    assert (one != other).flatten(1).any(1).float().mean() > 0.7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_do_not_depend_on_their_memory_format(channels: int, kind: str) -> None:
    views = view_parameters(AugmentConfig(flip=0.5, auto_augment=KINDS[kind]), 7, 3, np.arange(40))
    interleaved = images_of(40, channels).contiguous(memory_format=torch.channels_last)
    assert torch.equal(apply_on_device(interleaved, views), apply_on_device(images_of(40, channels), views))


class _Before(Config):
    """What a config and a key looked like when RandAugment was the only one."""

    flip: float
    rand_augment: dict[str, Any] | None


def test_a_config_with_rand_augment_is_still_valid_and_has_the_same_key() -> None:
    values = {"layers": 3, "magnitude": 7.0, "magnitude_std": 0.5, "probability": 0.5}
    for given in (
        {"rand_augment": values},
        {"auto_augment": values},
        {"auto_augment": {"kind": "rand_augment", **values}},
    ):
        config = parse_config(AugmentConfig, given, "augment")
        assert config.auto_augment == RandAugmentConfig(layers=3, magnitude=7.0)
        assert committed_config(AugmentConfig, given, "augment") == config
    before = canonical_json(_Before(flip=0.0, rand_augment=values))
    assert before.split('"rand_augment":')[1].rstrip("}") in canonical_json(config)
    new_names = ("hue", "interpolation", "erase_fill", "auto_augment", "kind")
    assert not any(name in canonical_json(config) for name in new_names)
    assert '"rand_augment":null' in canonical_json(AugmentConfig())


def test_one_automatic_augmentation_is_chosen_at_a_time() -> None:
    both = {"rand_augment": {"layers": 2}, "auto_augment": {"kind": "trivial_augment"}}
    with pytest.raises(InputError, match="auto_augment and rand_augment are both set"):
        parse_config(AugmentConfig, both, "augment")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "trivial"}, "trivial_augment"),
        ({"kind": "trivial_augment", "layers": 2}, "auto_augment.layers"),
        ({"kind": "augmix", "severity": 11}, "auto_augment.severity"),
        ({"kind": "auto_augment", "learned_on": "svhn"}, "auto_augment.learned_on"),
    ],
)
def test_wrong_values_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        parse_config(AugmentConfig, {"auto_augment": given}, "augment")
    assert "\n" not in str(refused.value)
