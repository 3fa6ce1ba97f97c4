"""Damaged samples in a training on several workers: each rank finds its own, and all ranks act on the total."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from pipeline.loading.quarantine import Quarantine


def exchange_damaged(quarantine: Quarantine | None, world: int, device: torch.device) -> dict[str, float]:
    """Exchanges the damaged samples between all ranks; every rank must call it. Returns values for metrics.jsonl.

    Raises:
        DamagedError: all ranks together found too many.
    """
    if quarantine is None:
        return {}
    if world > 1:
        unreported = quarantine.unreported()
        damaged = torch.tensor(len(unreported), device=device)
        dist.all_reduce(damaged)
        if damaged:
            by_rank: list[list[dict[str, Any]]] = [[] for _ in range(world)]
            dist.all_gather_object(by_rank, unreported)
            quarantine.merge(line for lines in by_rank for line in lines)
    return {"train/damaged": float(len(quarantine))} if len(quarantine) else {}
