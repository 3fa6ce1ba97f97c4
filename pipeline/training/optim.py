"""Optimisers, their parameter groups, and a learning rate that is a pure function of the step."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from pipeline.config import Config, added
from pipeline.training.layer_depths import layer_depths

_UNDECAYED_NAMES = ("pos_embed", "position", "cls_token", "class_token", "dist_token", "token_embedding", "logit_scale")


def layer_decay_field() -> Any:
    """The field `layer_decay` of an optimiser."""
    return added(
        None,
        gt=0,
        le=1,
        description="Layer-wise learning rates, for fine-tuning: a layer that is d layers below the head is trained "
        "with lr * layer_decay**d, and the head with lr. 0.65 to 0.9 keeps the first layers near their pretrained "
        "weights. null: one rate for all layers.",
    )


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

    layer_decay: float | None = layer_decay_field()

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

    layer_decay: float | None = layer_decay_field()

    def build(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=nesterov, fused=True)


OptimizerConfig = Annotated[AdamWConfig | SGDConfig, Field(discriminator="kind")]


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float | None = None
) -> list[dict[str, object]]:
    """Groups with and without decay: vectors (biases, norms), tokens and position embeddings are not decayed.

    Parameters without a gradient are excluded, so frozen layers need no optimiser state.

    Args:
        layer_decay: makes such groups for each layer, the head's first, each with its `lr_scale`.
    """
    depths = {} if layer_decay is None else layer_depths(model)
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim <= 1 or any(word in name for word in _UNDECAYED_NAMES)
            members.setdefault((depths.get(name, 0), plain), []).append(parameter)
    groups: list[dict[str, object]] = []
    for (depth, plain), parameters in sorted(members.items(), key=lambda member: member[0]):
        group: dict[str, object] = {"params": parameters, "weight_decay": 0.0 if plain else weight_decay}
        groups.append(group if layer_decay is None else group | {"lr_scale": layer_decay**depth})
    return groups


def build_optimizer(model: nn.Module, config: AdamWConfig | SGDConfig) -> torch.optim.Optimizer:
    """The optimiser for all parameters of `model` that require a gradient."""
    return config.build(parameter_groups(model, config.weight_decay, config.layer_decay))


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
