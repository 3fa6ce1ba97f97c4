"""What the parity tests of the zoo share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def randomised() -> Callable[[nn.Module], nn.Module]:
    """Makes the norms of a net matter: fresh ones all do nothing in evaluation, so mixed-up norms would go unseen."""

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
def settled() -> Callable[[nn.Module, Tensor], nn.Module]:
    """Gives a net the statistics of images, so that in evaluation a deep one tells its early layers' mistakes too.

    With statistics of chance the signal fades by a third a norm, and what is left after forty is rounding. The images
    must leave a dozen values a channel in the last map, else its variances are chance too.
    """

    def settle(net: nn.Module, images: Tensor) -> nn.Module:
        torch.manual_seed(0)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.uniform_(module.weight, 0.8, 1.2)
                nn.init.normal_(module.bias, std=0.1)
        with torch.no_grad():
            net.train()(images)
        return net.eval()

    return settle
