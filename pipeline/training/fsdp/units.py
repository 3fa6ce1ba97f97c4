"""The units of a network for FSDP: the modules whose weights are gathered together for their forward pass."""

from __future__ import annotations

from torch import nn

from pipeline.training.model_blocks import model_blocks

# A layer by itself is a unit from 4 MB on (VGG's dense layers): below, the message costs more than the memory is worth.
_LARGE_LAYER = 1 << 20


def units(model: nn.Module) -> list[nn.Module]:
    """The blocks of `model`, and its large layers outside of them. The model itself is the unit of all else.

    A large layer counts as an item of a Sequential or ModuleList only: another module might use its weights directly.
    """
    blocks = model_blocks(model)
    within = {module for block in blocks for module in block.modules()}
    containers = (module for module in model.modules() if type(module) in (nn.Sequential, nn.ModuleList))
    items = dict.fromkeys(item for container in containers for item in container.children())
    return blocks + [item for item in items if item not in within and _is_large_layer(item)]


def _is_large_layer(module: nn.Module) -> bool:
    is_layer = next(module.children(), None) is None
    return is_layer and sum(parameter.numel() for parameter in module.parameters()) >= _LARGE_LAYER
