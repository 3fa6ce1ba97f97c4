"""Gradient checkpointing: a block's activations are computed again in the backward pass instead of being kept.

The gradients have the same bits: random numbers (dropout, stochastic depth) are drawn from the same state again, and
batch norm updates its running statistics in the first pass only.

Source: Chen 2016, "Training Deep Nets with Sublinear Memory Cost"; torch.utils.checkpoint recomputes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from pipeline.errors import InputError
from pipeline.training.model_blocks import model_blocks


def checkpoint_blocks(model: nn.Module) -> None:
    """Makes each block of `model` recompute its activations; parameters and their names do not change.

    Raises:
        InputError: the model has no blocks.
    """
    check_blocks(model)
    for block in model_blocks(model):
        block.__class__ = _checkpointed(type(block))


def check_blocks(model: nn.Module) -> None:
    """Checks that a model has blocks.

    Raises:
        InputError: it has none.
    """
    if not model_blocks(model):
        raise InputError(
            "training.gradient_checkpointing: the model has no repeated blocks that could be computed again; set it to "
            "false, or a higher training.accumulation, which needs less memory too"
        )


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """One class for all blocks of a kind, by which `model_blocks` still finds them."""
    if kind not in _classes:
        _classes[kind] = type(kind.__name__, (_Checkpointed, kind), {})
    return _classes[kind]


class _Checkpointed(nn.Module):
    """Goes before the class of a block, whose forward it calls."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        forward = super().forward
        if not (self.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_kept(self)

        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Within the block, batch norm updates copies of its running statistics."""
    kept = [
        (module, name, buffer)
        for module in block.modules()
        if isinstance(module, _NormBase) and module.training
        for name, buffer in module.named_buffers(recurse=False)
    ]
    for module, name, buffer in kept:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in kept:
            setattr(module, name, buffer)
