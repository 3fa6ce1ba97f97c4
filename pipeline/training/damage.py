"""What damaged samples mean for a training on several workers: each meets its own, all act on all of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from pipeline.loading.quarantine import Quarantine


def share_damage(quarantine: Quarantine | None, world: int, device: torch.device) -> dict[str, float]:
    """Tells every rank what the others found; every rank must call it. What it found goes into metrics.jsonl.

    Raises:
        DamagedError: all ranks together found too many.
    """
    if quarantine is None:
        return {}
    if world > 1:
        mine = quarantine.unreported()
        found = torch.tensor(len(mine), device=device)
        dist.all_reduce(found)
        if found:
            everyone: list[list[dict[str, Any]]] = [[] for _ in range(world)]
            dist.all_gather_object(everyone, mine)
            quarantine.merge(line for lines in everyone for line in lines)
    return {"train/damaged": float(len(quarantine))} if len(quarantine) else {}
