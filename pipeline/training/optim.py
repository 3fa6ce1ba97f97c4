"""Optimisers, their parameter groups, and a learning rate that is a pure function of the step."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from pipeline.config import Config

_UNDECAYED_NAMES = ("pos_embed", "position", "cls_token", "class_token", "dist_token", "token_embedding", "logit_scale")


class AdamWConfig(Config):
    """AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = Field("adamw", description="AdamW: Adam with decoupled weight decay.")
    lr: float = Field(1e-3, gt=0, le=10, description="Peak learning rate, reached after warmup.")
    weight_decay: float = Field(
        0.05, ge=0, le=10, description="Decoupled weight decay; not applied to biases, norms and tokens."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay rate of the running mean of gradients.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay rate of the running mean of squared gradients.")
    eps: float = Field(1e-8, gt=0, le=1, description="Epsilon added to the denominator, for numerical stability.")

    def build(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        # The fused kernel updates all parameters in one pass, also on CPU.
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)


class SGDConfig(Config):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = Field("sgd", description="SGD with momentum.")
    lr: float = Field(0.1, gt=0, le=100, description="Peak learning rate, reached after warmup.")
    weight_decay: float = Field(
        1e-4, ge=0, le=10, description="Weight decay (L2 penalty); not applied to biases, norms and tokens."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum factor. 0: no momentum.")
    nesterov: bool = Field(True, description="Use Nesterov momentum.")

    def build(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=nesterov, fused=True)


OptimizerConfig = Annotated[AdamWConfig | SGDConfig, Field(discriminator="kind")]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups, with and without decay: vectors (biases, norms), tokens and position embeddings are not decayed.

    Parameters without a gradient are excluded, so frozen layers need no optimiser state.
    """
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim <= 1 or any(word in name for word in _UNDECAYED_NAMES)
            (undecayed if plain else decayed).append(parameter)
    groups = ((decayed, weight_decay), (undecayed, 0.0))
    return [{"params": list(parameters), "weight_decay": decay} for parameters, decay in groups if parameters]


def build_optimizer(model: nn.Module, config: AdamWConfig | SGDConfig) -> torch.optim.Optimizer:
    """The optimiser for all parameters of `model` that require a gradient."""
    return config.build(parameter_groups(model, config.weight_decay))


def schedule_factor(step: int, total: int, *, warmup_steps: int, kind: str, final_share: float) -> float:
    """The fraction of the peak learning rate at `step` (0-based): linear warm-up, then cosine or constant.

    The first step has 1 / warmup_steps of the peak and the last step has `final_share`,
    so no step has a rate of zero.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if kind == "constant":
        return 1.0
    done = (step - warmup_steps) / max(1, total - 1 - warmup_steps)
    return final_share + (1.0 - final_share) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group to `lr`, times the group's `lr_scale` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
