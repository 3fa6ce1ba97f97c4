"""Fixtures for the parity tests of the zoo."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def randomised() -> Callable[[nn.Module], nn.Module]:
    """Randomises the norms of a net: new ones are the identity in evaluation, so swapped norms would go undetected."""

    def randomise(net: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
        return net.eval()

    return randomise


@pytest.fixture
def with_batch_statistics() -> Callable[[nn.Module, Tensor], nn.Module]:
    """Sets a net's batch norm statistics from images, so that a deep net's output also shows errors of early layers.

    With random statistics the signal fades by a third per norm, and after forty only rounding remains. The images
    must give a dozen values per channel in the last map, otherwise its variances are also random.
    """

    def set_batch_statistics(net: nn.Module, images: Tensor) -> nn.Module:
        torch.manual_seed(0)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.uniform_(module.weight, 0.8, 1.2)
                nn.init.normal_(module.bias, std=0.1)
        with torch.no_grad():
            net.train()(images)
        return net.eval()

    return set_batch_statistics
