"""A moving average of a model's weights, used for evaluation and export."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pipeline.training.fsdp.tensor_parts import is_divided, local


def ramped_decay(decay: float, updates: int) -> float:
    """The decay after `updates` updates: small at first, so that the initial weights soon lose influence.

    Source: TensorFlow's ExponentialMovingAverage, min(decay, (1 + t) / (10 + t)).
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """Exponential moving average of all floating-point weights and buffers; counters are copied.

    Args:
        model: the model to average; the average starts as a copy of it.
        decay: decay of the average per step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.pair(model)

    def pair(self, model: nn.Module) -> None:
        """Finds the tensors of `model`; again, after they were divided among ranks, as those of the average were."""
        self._averaged, self._copied = _pairs(self.module, model)

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Adds the model's current weights to the average; `updates` is the number of earlier updates."""
        weight = 1.0 - ramped_decay(self.decay, updates)
        averaged, values = ([local(tensor) for tensor in tensors] for tensors in self._averaged)
        torch._foreach_lerp_(averaged, values, weight)
        for target, source in zip(*self._copied, strict=True):
            target.copy_(source)


_Pair = tuple[list[Tensor], list[Tensor]]


def _pairs(average: nn.Module, model: nn.Module) -> tuple[_Pair, _Pair]:
    """(average, model) pairs of tensors: the ones to average, and the ones to copy (integers)."""
    averaged: _Pair = ([], [])
    copied: _Pair = ([], [])
    sources = model.state_dict(keep_vars=True)
    for name, target in average.state_dict(keep_vars=True).items():
        targets, values = averaged if target.is_floating_point() else copied
        targets.append(target if is_divided(target) else target.detach())
        values.append(sources[name] if is_divided(target) else sources[name].detach())
    return averaged, copied
