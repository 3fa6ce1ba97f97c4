"""Data-parallel training: each rank has the whole model and trains with its slice of the global batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import WorkError


def wrap_in_ddp(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """The model, whose backward pass averages gradients over the ranks."""
    ids = [device.index] if device.type == "cuda" else None
    # Running statistics are averaged instead of those of rank 0 being broadcast before each forward pass.
    return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True, forward_sync_buffers=False)


def check_same_step(step: int, device: torch.device) -> None:
    """Raises an error if ranks resume at different steps: they would silently average unrelated gradients."""
    steps = torch.tensor([step, -step], device=device)
    dist.all_reduce(steps, dist.ReduceOp.MAX)
    if steps[0] != -steps[1]:
        raise WorkError(
            f"workers see different checkpoints: steps {-int(steps[1])} to {int(steps[0])}; is the store shared?"
        )
