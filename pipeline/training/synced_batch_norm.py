"""Batch norm over the rows of all ranks, so that a training normalises by the same statistics on any number of workers.

On GPUs it is torch's SyncBatchNorm, which has no kernels for CPUs; `CpuSyncBatchNorm` computes the same with kernels
that CPUs have. With N values per channel on all ranks, x' = (x - mean) / std and sums over all ranks:

    y = weight * x' + bias
    dx = weight / std * (dy - sum(dy) / N - x' * sum(dy * x') / N)

Source: Ioffe 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift".
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import InputError

_SYNCABLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_syncable(norm: _BatchNorm) -> bool:
    """Whether it is torch's batch norm, not a subclass with computations of its own."""
    return type(norm) in _SYNCABLE


def with_synced_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with each batch norm over all ranks, with the same parameters and names; `model` itself is changed.

    Raises:
        InputError: a batch norm is of a class of its own, whose other computations the replacement would not have.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not is_syncable(module):
            raise InputError(
                f"training.sync_batch_norm: {name} of the model is a {type(module).__name__}, which cannot be "
                "synchronised; set it to false"
            )
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = CpuSyncBatchNorm  # the same attributes, another forward
    return model


def is_synced(module: nn.Module) -> bool:
    """Whether the module is a batch norm over all ranks."""
    return isinstance(module, nn.SyncBatchNorm | CpuSyncBatchNorm)


class CpuSyncBatchNorm(_BatchNorm):
    """Batch norm over all ranks, in training on CPUs; in eval mode it is batch norm.

    It is no SyncBatchNorm, because DistributedDataParallel refuses those on CPUs.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean, variance, count = _global_statistics(input.detach())
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)  # unbiased, as that of batch norm
        output: Tensor = _Normalisation.apply(input, self.weight, self.bias, mean, variance, count, self.eps)
        return output

    def _check_input_dim(self, input: Tensor) -> None:
        """Any shape [B, C, ...]."""


def _global_statistics(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance [C] of each channel over the rows of all ranks, and the number of values, a scalar."""
    channels = input.shape[1]
    at_least_float32 = input.to(torch.promote_types(input.dtype, torch.float32))
    mean, variance = torch.batch_norm_update_stats(at_least_float32, None, None, 0.0)
    own = torch.cat([mean, variance, mean.new_tensor([input.numel() / channels])])
    # A sum with zeros has the same bits as all_gather, which takes 195 us on one rank of gloo where this takes 43.
    by_rank = own.new_zeros(dist.get_world_size(), len(own))
    by_rank[dist.get_rank()] = own
    dist.all_reduce(by_rank)
    means, variances, counts = by_rank.split([channels, channels, 1], dim=1)
    count = counts.sum()
    shares = counts / count
    mean = (shares * means).sum(0)
    # Law of total variance; a sum of squares would lose digits where the mean is large.
    return mean, (shares * (variances + (means - mean).square())).sum(0), count


class _Normalisation(torch.autograd.Function):
    """y of the module's docstring, with the gradient through the statistics of all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, mean, variance, count)
        ctx.eps = eps
        return F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, variance, count = ctx.saved_tensors
        # With constant statistics, as in evaluation, and without dx: sum(dy * x') and sum(dy) of this rank.
        _, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], input, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        sums = torch.stack([for_bias, for_weight])
        dist.all_reduce(sums)
        inverse_std = (variance + ctx.eps).rsqrt()
        scale = inverse_std if weight is None else inverse_std * weight
        offset, slope = sums * scale / count
        slope = slope * inverse_std
        per_channel = (-1, *[1] * (input.ndim - 2))
        # scale * dy - offset - slope * (x - mean): two passes over memory, where three terms would take three.
        gradient = torch.addcmul((slope * mean - offset).view(per_channel), input, -slope.view(per_channel))
        gradient = gradient.addcmul_(gradients[0], scale.view(per_channel)).to(input.dtype)
        given = None if weight is None else for_weight
        return gradient, given, None if weight is None else for_bias, None, None, None, None
