"""Micro-batches change neither the results nor their order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model_defs import create_model
from pipeline.micro_batches import in_micro_batches


@pytest.mark.parametrize(
    ("images", "side", "sizes"),
    [
        (31, 224, [31]),
        (32, 224, [16, 16]),
        (53, 224, [16, 16, 21]),
        (40, 500, [16, 24]),
        (256, 64, [256]),
        (400, 64, [196, 204]),
        (5, 8, [5]),
    ],
)
def test_large_images_are_computed_a_few_at_once(images: int, side: int, sizes: list[int]) -> None:
    numbers = torch.arange(images).view(-1, 1, 1, 1).expand(images, 1, side, side)
    seen: list[int] = []

    def compute(some: Tensor) -> Tensor:
        seen.append(len(some))
        return some[:, 0, 0, 0]

    assert in_micro_batches(compute, numbers).tolist() == list(range(images))
    assert seen == sizes


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("resnet_small", {"widths": [8, 16, 16, 16]}), ("vit_micro", {"img_size": 224, "patch_size": 16, "depth": 1})],
)
def test_logits_are_those_of_one_batch(name: str, kwargs: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=7, **kwargs).eval()
    images = torch.rand(37, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(in_micro_batches(model, images), model(images), rtol=1e-5, atol=1e-5)
