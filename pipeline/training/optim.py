"""Optimisers, and their parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.training.fsdp.tensor_parts import is_divided
from pipeline.training.lamb import Lamb
from pipeline.training.layer_depths import layer_depths
from pipeline.training.muon import MuonWithAdamW, hidden_matrices, split_groups
from pipeline.training.optimizer_config import (
    AdamWConfig,
    LambConfig,
    MuonConfig,
    Optimizer,
    RMSpropConfig,
    SGDConfig,
)

_UNDECAYED_NAMES = ("pos_embed", "position", "cls_token", "class_token", "dist_token", "token_embedding", "logit_scale")


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float | None = None) -> list[dict[str, Any]]:
    """Groups with and without decay: vectors (biases, norms), tokens and position embeddings are not decayed.

    Parameters without a gradient are excluded, so frozen layers need no optimiser state.

    Args:
        layer_decay: if given, each layer has its own such groups, the head's first, with `lr_scale`
            layer_decay**depth (see `layer_depths`).
    """
    depths = {} if layer_decay is None else layer_depths(model)
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            undecayed = parameter.ndim <= 1 or any(word in name for word in _UNDECAYED_NAMES)
            members.setdefault((depths.get(name, 0), undecayed), []).append(parameter)
    groups: list[dict[str, Any]] = []
    for (depth, undecayed), parameters in sorted(members.items(), key=lambda member: member[0]):
        group: dict[str, Any] = {"params": parameters, "weight_decay": 0.0 if undecayed else weight_decay}
        groups.append(group if layer_decay is None else group | {"lr_scale": layer_decay**depth})
    return groups


def build_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """The optimiser for all parameters of `model` that require a gradient.

    Raises:
        InputError: the model has no matrix for Muon.
    """
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    if isinstance(config, SGDConfig):
        nesterov = config.nesterov and config.momentum > 0
        # The fused kernel does not know divided parameters.
        kernel = {"foreach": True} if any(map(is_divided, model.parameters())) else {"fused": True}
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, **kernel)
    if isinstance(config, RMSpropConfig):
        return torch.optim.RMSprop(
            groups, lr=config.lr, alpha=config.decay, momentum=config.momentum, eps=config.eps, foreach=True
        )
    if isinstance(config, LambConfig):
        return Lamb(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)
    if isinstance(config, MuonConfig):
        matrices, groups = split_groups(groups, hidden_matrices(model))
        muon = torch.optim.Muon(matrices, lr=config.lr, momentum=config.momentum, adjust_lr_fn="match_rms_adamw")
        return MuonWithAdamW(muon, _adamw(groups, config))
    return _adamw(groups, config)


def _adamw(groups: list[dict[str, Any]], config: AdamWConfig | MuonConfig) -> torch.optim.AdamW:
    # The fused kernels update all parameters in one pass, also on CPU.
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group to `lr`, times the group's `lr_scale` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
