"""The running mean and variance of batch norm, averaged over the ranks after each step.

In training, each rank normalises by its own rows, and so updates running statistics of its own. After each step they
are averaged, weighted by rows. So all ranks evaluate, average (EMA) and export the same model, and the checkpoint of
one rank is the state of all, also for a resumed run with another number of workers.

The averaged mean is that of the global batch. The averaged variance is that within a rank's rows, by which training
normalises, as with gradient accumulation it is that within a micro-batch. The variance of the global batch is larger by
the variance between the ranks' means (law of total variance), but nothing was normalised by it; for that, see
synced_batch_norm.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pipeline.training.synced_batch_norm import is_synced


@torch.no_grad()
def average_running_statistics(model: nn.Module, share: float) -> None:
    """Averages the running statistics that a step updated over all ranks; every rank must call it.

    Those of synchronised batch norm are equal already, and frozen ones, in eval mode, keep their bits.

    Args:
        model: in training mode.
        share: this rank's fraction of the rows of the global batch; those of all ranks sum to 1.
    """
    statistics = [
        statistic
        for module in model.modules()
        if isinstance(module, _NormBase) and module.training and not is_synced(module)
        for statistic in (module.running_mean, module.running_var)
        if statistic is not None
    ]
    if not statistics:
        return
    values = torch.cat(statistics).mul_(share)
    dist.all_reduce(values)
    torch._foreach_copy_(statistics, values.split([len(statistic) for statistic in statistics]))
