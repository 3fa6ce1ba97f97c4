"""The blocks of a network: the units that are compiled, and that gradient checkpointing recomputes.

A block is a module with layers of its own, of a class of which the network has two or more in a Sequential, ModuleList
or ModuleDict, or four or more anywhere. Residual blocks, inception blocks, dense blocks and transformer layers are
found, in our models and in those of torchvision and timm. A plain chain of layers, such as VGG's, has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_REPEATED, _REPEATED_ANYWHERE = 2, 4


def model_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model in their order; of blocks within blocks, the outermost."""
    anywhere = Counter(type(module) for module in model.modules() if _is_composite(module))
    listed = Counter(
        type(child) for module in model.modules() if type(module) in _CONTAINERS for child in module.children()
    )
    kinds = {
        kind for kind, count in anywhere.items() if listed[kind] >= _REPEATED or count >= _REPEATED_ANYWHERE
    }  # fmt: skip
    return list(_outermost(model, kinds))


def _is_composite(module: nn.Module) -> bool:
    return type(module) not in _CONTAINERS and any(True for _ in module.children())


def _outermost(module: nn.Module, kinds: set[type[nn.Module]]) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child) in kinds and _is_composite(child):
            yield child
        else:
            yield from _outermost(child, kinds)
