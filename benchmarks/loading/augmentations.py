"""Time of each augmentation on one core, beside torchvision.transforms.v2 on PIL images.

    python benchmarks/loading/augmentations.py

The same images of 224 pixels, as a decoder gives them (uint8 [H, W, C]), become a batch uint8 [B, C, H, W]: by
`apply_on_device` in pieces of 10, as the decoding threads do it, and by PIL image, transform and `pil_to_tensor`. Both
interpolate bilinearly where they interpolate, and draw a new view of each image in each round. The rounds alternate;
the medians, and the median of the ratios of a round, are printed.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from photos import photograph
from PIL import Image, ImageFilter
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

from pipeline.loading.augment import apply_on_device, view_parameters
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.auto_augment_config import (
    AugMixConfig,
    AutoAugmentConfig,
    RandAugmentConfig,
    ThreeAugmentConfig,
    TrivialAugmentConfig,
)
from pipeline.loading.decode import Crop, cut

_SIZE, _PIECE = 224, 10
_FILLED: dict[str, Any] = {"interpolation": InterpolationMode.BILINEAR, "fill": 128}
_PLAIN: dict[str, Any] = {"crop_min_area": 1, "crop_max_ratio": 1, "brightness": 0, "contrast": 0, "saturation": 0}


class _Blur:
    """PIL's blur with DeiT III's deviations."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))


CASES: dict[str, tuple[dict[str, Any], Callable[[Image.Image], Any]]] = {
    "brightness, contrast, saturation": (
        {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
        v2.ColorJitter(0.4, 0.4, 0.4),
    ),
    "the same and hue": (
        {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    ),
    "hue": ({"hue": 0.1}, v2.ColorJitter(hue=0.1)),
    "RandAugment": ({"auto_augment": RandAugmentConfig(probability=1)}, v2.RandAugment(**_FILLED)),
    "TrivialAugment Wide": ({"auto_augment": TrivialAugmentConfig()}, v2.TrivialAugmentWide(**_FILLED)),
    "AutoAugment, ImageNet": ({"auto_augment": AutoAugmentConfig()}, v2.AutoAugment(**_FILLED)),
    "AutoAugment, CIFAR-10": (
        {"auto_augment": AutoAugmentConfig(learned_on="cifar10")},
        v2.AutoAugment(AutoAugmentPolicy.CIFAR10, **_FILLED),
    ),
    "AugMix": ({"auto_augment": AugMixConfig()}, v2.AugMix(**_FILLED)),
    "3-Augment": (
        {"auto_augment": ThreeAugmentConfig()},
        v2.RandomChoice([v2.Grayscale(3), v2.RandomSolarize(128, p=1), _Blur()]),
    ),
}


def ours(pixels: list[NDArray[np.uint8]], config: AugmentConfig, epoch: int) -> torch.Tensor:
    """The batch as the decoding threads fill it."""
    batch = torch.empty((len(pixels), 3, _SIZE, _SIZE), dtype=torch.uint8)
    rows = batch.numpy().transpose(0, 2, 3, 1)
    views = view_parameters(config, 0, epoch, np.arange(len(pixels)))
    for start in range(0, len(pixels), _PIECE):
        piece = slice(start, start + _PIECE)
        for row in range(len(pixels))[piece]:
            rows[row] = pixels[row]
        augmented = apply_on_device(batch[piece], views.select(piece))
        if augmented.data_ptr() != batch[piece].data_ptr():
            batch[piece] = augmented
    return batch


def torchvisions(pixels: list[NDArray[np.uint8]], transform: Callable[[Image.Image], Any], _epoch: int) -> torch.Tensor:
    """The batch by torchvision."""
    batch = torch.empty((len(pixels), 3, _SIZE, _SIZE), dtype=torch.uint8)
    for row, image in enumerate(pixels):
        batch[row] = v2.functional.pil_to_tensor(transform(Image.fromarray(image)))
    return batch


def erasing(noise: bool) -> tuple[AugmentConfig, Callable[[torch.Tensor], torch.Tensor]]:
    """Random erasing of every image."""
    config = AugmentConfig(**_PLAIN, erase=1, erase_max_area=1 / 3, erase_fill="noise" if noise else "mean")
    return config, v2.RandomErasing(1, scale=(0.02, 1 / 3), value="random" if noise else 0)


def _erased(images: torch.Tensor, erase: Callable[[torch.Tensor], torch.Tensor], _epoch: int) -> list[torch.Tensor]:
    return [erase(image) for image in images]


def time_pair(one: Callable[[int], Any], other: Callable[[int], Any], rounds: int, images: int) -> str:
    """The median times of an image in microseconds, and the median of their ratios."""
    one(0), other(0)
    seconds: list[tuple[float, float]] = []
    for number in range(1, rounds + 1):
        began = time.perf_counter()
        one(number)
        between = time.perf_counter()
        other(number)
        seconds.append((between - began, time.perf_counter() - between))
    first, second = (1e6 * statistics.median(column) / images for column in zip(*seconds, strict=True))
    ratio = statistics.median(one / other for one, other in seconds)
    return f"{first:8.0f} {second:8.0f} {ratio:6.2f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="number of images")
    parser.add_argument("--rounds", type=int, default=15, help="number of rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    whole = [np.asarray(Image.open(io.BytesIO(photograph(n)))) for n in range(arguments.images)]
    pixels = [np.ascontiguousarray(cut(image, _SIZE, None)) for image in whole]
    print(f"{'us an image, torchvision beside it':36} {'ours':>8} {'peer':>8} {'ratio':>6}")

    def report(name: str, one: Callable[[int], Any], other: Callable[[int], Any]) -> None:
        print(f"{name:36} {time_pair(one, other, arguments.rounds, arguments.images)}", flush=True)

    for name, (changed, transform) in CASES.items():
        config = AugmentConfig(**{**_PLAIN, **changed})
        report(name, partial(ours, pixels, config), partial(torchvisions, pixels, transform))
    floats = torchvisions(pixels, v2.Identity(), 0) / 255
    for noise in (False, True):
        config, erase = erasing(noise)
        report(
            f"random erasing with {'noise' if noise else 'one colour'}",
            partial(ours, pixels, config),
            partial(_erased, floats, erase),  # torchvision erases floats after normalisation
        )
    crop = Crop(0.5, 1.2, 0.3, 0.6, interpolation="bicubic")
    report(
        "bicubic crop",
        lambda _: [cut(image, _SIZE, crop) for image in whole],
        lambda _: [_bicubic(image, crop) for image in whole],
    )


def _bicubic(pixels: NDArray[np.uint8], crop: Crop) -> Image.Image:
    top, left, height, width = crop.box(*pixels.shape[:2])
    image = Image.fromarray(pixels)
    size = [_SIZE, _SIZE]
    result: Image.Image = v2.functional.resized_crop(
        image, top, left, height, width, size, InterpolationMode.BICUBIC, antialias=True
    )
    return result


if __name__ == "__main__":
    main()
