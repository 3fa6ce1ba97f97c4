"""What is loaded for a GPU: the same samples in the same views as for a CPU, and nothing that waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.loading.augment import apply_on_device, view_parameters
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.auto_augment_config import (
    AugMixConfig,
    AutoAugmentConfig,
    RandAugmentConfig,
    ThreeAugmentConfig,
    TrivialAugmentConfig,
)
from pipeline.loading.loader import Loader
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.rand_augment import OPERATIONS
from pipeline.loading.reader import SampleReader
from pipeline.loading.tokenizer import Tokenizer

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("without_tf32")]

GPU = torch.device("cuda", 0)
MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
PLAIN = AugmentConfig(crop_min_area=0.3, flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, erase=0.5)
EVERYTHING = PLAIN.model_copy(update={"auto_augment": RandAugmentConfig(), "scale_jitter": (1.2, 2.4)})


def images_of(count: int, channels: int = 3, side: int = 40) -> Tensor:
    """Smooth noise."""
    rough = np.random.default_rng(0).integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)
    return torch.nn.functional.interpolate(torch.from_numpy(rough), size=(side, side), mode="bilinear")


def assert_nearly_the_same(one: Tensor, other: Tensor) -> None:
    """A pixel in a thousand may be rounded the other way, before an operation that makes more of it."""
    off = (one.int() - other.int()).abs()
    assert (off > 0).float().mean() < 1e-3
    assert off.float().mean() < 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_flip_and_erasing_give_the_same_bits(channels: int) -> None:
    views = view_parameters(PLAIN, 7, 3, np.arange(256))
    on_gpu = apply_on_device(images_of(256, channels).to(GPU), views)
    assert on_gpu.device == GPU
    assert torch.equal(on_gpu.cpu(), apply_on_device(images_of(256, channels), views))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_of_rand_augment_gives_the_same_image(name: str, channels: int) -> None:
    images, strengths = images_of(64, channels), torch.linspace(-1, 1, 64)[:, None, None, None]
    on_cpu = OPERATIONS[name](images.clone(), strengths)
    on_gpu = OPERATIONS[name](images.to(GPU), strengths.to(GPU)).cpu()
    if name in MOVING:
        assert_nearly_the_same(on_gpu, on_cpu)
        assert (on_gpu.int() - on_cpu.int()).abs().max() <= 1
    else:
        assert torch.equal(on_gpu, on_cpu)


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_gives_the_same_bits(channels: int) -> None:
    config = PLAIN.model_copy(update={"erase": 0.7, "erase_fill": "noise"})
    views = view_parameters(config, 7, 3, np.arange(256))
    on_gpu = apply_on_device(images_of(256, channels).to(GPU), views)
    assert torch.equal(on_gpu.cpu(), apply_on_device(images_of(256, channels), views))


def test_a_hue_gives_the_same_image() -> None:
    views = view_parameters(PLAIN.model_copy(update={"hue": 0.5}), 7, 3, np.arange(256))
    on_gpu = apply_on_device(images_of(256).to(GPU), views)
    assert_nearly_the_same(on_gpu.cpu(), apply_on_device(images_of(256), views))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [TrivialAugmentConfig(), AutoAugmentConfig(), AugMixConfig(), ThreeAugmentConfig()])
def test_automatic_augmentation_gives_nearly_the_image_of_pil(kind: Any, channels: int) -> None:
    views = view_parameters(PLAIN.model_copy(update={"auto_augment": kind}), 7, 3, np.arange(256))
    on_gpu = apply_on_device(images_of(256, channels).to(GPU), views).cpu().int()
    off = (on_gpu - apply_on_device(images_of(256, channels), views).int()).abs()
    assert (off > 2).float().mean() < 0.01  # a level that equalize or posterize makes larger
    assert off.float().mean() < 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_has_the_same_bits_in_any_batch(channels: int) -> None:
    ids = np.arange(200)
    whole = apply_on_device(images_of(200, channels).to(GPU), view_parameters(EVERYTHING, 7, 3, ids))
    for part in (slice(0, 1), slice(1, 4), slice(37, 101), slice(199, 200)):
        views = view_parameters(EVERYTHING, 7, 3, ids[part])
        alone = apply_on_device(images_of(200, channels)[part].to(GPU), views)
        assert torch.equal(alone, whole[part])


def loader_of(shards: Any, device: torch.device, channels: int = 3) -> Loader:
    policy = Shuffled(np.arange(len(shards.index)), 24, 5)
    return Loader(
        SampleReader.open(shards.artifact),
        shards.index,
        policy,
        image_size=32,
        channels=channels,
        augment=EVERYTHING,
        copies=2,
        seed=5,
        tokenizer=Tokenizer(16),
        device=device,
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_loader_gives_a_gpu_what_it_gives_a_cpu(shards: Any, channels: int) -> None:
    loaders = (loader_of(shards, device, channels).batches(3, 9) for device in (torch.device("cpu"), GPU))
    for on_cpu, on_gpu in zip(*loaders, strict=True):
        assert on_gpu.images.device == GPU
        assert_nearly_the_same(on_gpu.images.cpu(), on_cpu.images)
        for name in ("ids", "labels", "groups", "tokens"):
            assert getattr(on_gpu, name).device == GPU
            assert torch.equal(getattr(on_gpu, name).cpu(), getattr(on_cpu, name))


def test_a_view_does_not_wait_for_the_gpu(no_waiting: Any) -> None:
    """So that the next batch is prepared while the GPU trains on this one."""
    for step in range(4):
        images = images_of(64).pin_memory()
        with no_waiting(step):
            on_gpu = images.to(GPU, non_blocking=True)
            apply_on_device(on_gpu, view_parameters(EVERYTHING, 7, step, np.arange(64)))


def test_batches_stay_whole_while_the_gpu_lags_behind(shards: Any) -> None:
    """Page-locked memory is not used again before the GPU has taken what was in it."""
    loader = loader_of(shards, GPU)
    slow = torch.randn(4096, 4096, device=GPU)
    sums = []
    for batch in loader.batches(0, 40):
        for _ in range(3):
            slow = slow @ slow / 64
        sums.append(batch.images.sum(dtype=torch.int64))
    once_more = [batch.images.sum(dtype=torch.int64).item() for batch in loader.batches(0, 40)]
    assert torch.stack(sums).tolist() == once_more
