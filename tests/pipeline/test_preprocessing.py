"""The conversion of pixels to a model's input: the same bits in every layout, and no change of what is given."""

from __future__ import annotations

import pytest
import torch

from pipeline.preprocessing import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images_of(channels: int, *, channels_last: bool, rows: int = 5) -> torch.Tensor:
    images = torch.randint(0, 256, (rows, channels, 9, 13), dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_pixels_have_the_bits_and_the_layout_of_the_formula(channels: int, channels_last: bool, rows: int) -> None:
    images = images_of(channels, channels_last=channels_last, rows=rows)
    given = images.clone()
    mean, std = (torch.tensor(values[:channels])[:, None, None] * 255 for values in (MEAN, STD))
    wanted = (images.float() - mean) / std
    found = Preprocessing(13, channels, MEAN[:channels], STD[:channels]).normalise(images)
    assert torch.equal(found, wanted)
    assert found.stride() == wanted.stride()
    assert torch.equal(images, given)


def test_a_slice_of_a_batch_is_converted_as_the_batch() -> None:
    preprocessing = Preprocessing(13, 3, MEAN, STD)
    images = images_of(3, channels_last=True)
    assert torch.equal(preprocessing.normalise(images[1:4]), preprocessing.normalise(images)[1:4])
    assert torch.equal(preprocessing.normalise(images[..., 2:9]), preprocessing.normalise(images)[..., 2:9])


def test_mixed_images_are_left_as_they_were_and_pass_a_gradient() -> None:
    preprocessing = Preprocessing(13, 3, MEAN, STD)
    with torch.inference_mode():
        preprocessing.normalise(images_of(3, channels_last=False))  # constants made here serve below
    images = images_of(3, channels_last=True).float().requires_grad_()
    given = images.detach().clone()
    preprocessing.normalise(images).sum().backward()
    assert torch.equal(images.detach(), given)
    assert images.grad is not None
    torch.testing.assert_close(images.grad[:, 0], torch.full_like(images.grad[:, 0], 1 / (255 * STD[0])))
