"""Training mode, in which batch norm can keep the running statistics of pretrained weights."""

from __future__ import annotations

from torch import nn


def set_training_mode(model: nn.Module, *, freeze_batch_norm: bool) -> None:
    """Sets `model` to training mode; frozen batch norm normalises by its running mean and variance, and keeps them.

    Its scale and offset are trained in either case.
    """
    model.train()
    if freeze_batch_norm:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
