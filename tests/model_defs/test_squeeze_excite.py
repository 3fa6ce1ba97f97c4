"""Promises of the squeeze-and-excitation module."""

from __future__ import annotations

import pytest
import torch

from model_defs.errors import ModelError
from model_defs.layers.squeeze_excite import SqueezeExcite


def test_the_gates_follow_equations_2_to_4() -> None:
    torch.manual_seed(0)
    module = SqueezeExcite(6, reduction=2)
    x = torch.randn(2, 6, 3, 5)
    w1, b1 = module.fc1.weight[:, :, 0, 0], module.fc1.bias
    w2, b2 = module.fc2.weight[:, :, 0, 0], module.fc2.bias
    z = x.flatten(2).sum(2) / 15
    s = 1 / (1 + torch.exp(-(w2 @ (w1 @ z.T + b1[:, None]).clamp(min=0) + b2[:, None]).T))
    torch.testing.assert_close(module(x), x * s[:, :, None, None])


def test_a_channel_is_scaled_by_the_other_channels_too() -> None:
    torch.manual_seed(0)
    module = SqueezeExcite(4, reduction=1)
    x = torch.rand(1, 4, 2, 2)
    other = x.clone()
    other[:, 3] += 5
    assert not torch.equal(module(x)[:, 0], module(other)[:, 0])


@pytest.mark.parametrize(("channels", "reduction"), [(256, 16), (64, 4)])
def test_it_costs_what_its_docstring_says(channels: int, reduction: int) -> None:
    count = sum(parameter.numel() for parameter in SqueezeExcite(channels, reduction).parameters())
    assert count == 2 * channels**2 // reduction + channels // reduction + channels


def test_few_channels_keep_one_in_the_middle() -> None:
    assert SqueezeExcite(8, reduction=16).fc1.out_channels == 1


@pytest.mark.parametrize(("channels", "reduction"), [(0, 16), (16, 0)])
def test_nothing_to_squeeze_is_refused(channels: int, reduction: int) -> None:
    with pytest.raises(ModelError, match="1 or more"):
        SqueezeExcite(channels, reduction)
