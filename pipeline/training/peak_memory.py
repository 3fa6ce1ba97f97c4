"""The most memory that a training has used: of its process on a CPU, of PyTorch's allocator on a GPU."""

from __future__ import annotations

import resource
import sys

import torch


def peak_memory_mb(device: torch.device) -> int:
    """MB (10^6 bytes) so far; on a CPU of the whole process, with whatever else it did."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_reserved(device) / 1e6)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
