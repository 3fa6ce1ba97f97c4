"""Pairs of rows of a global batch, which mixup and CutMix blend: rows 2i and 2i + 1, since the order is random already.

The pairs are those of the global batch, however it is cut into the slices of ranks and into micro-batches. A cut can be
inside a pair; so a loader with `whole_pairs` decodes the other row too, and a batch refers to the rows from which it
was cut.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.loading.batch import Batch


def extend_to_pairs(start: int, stop: int, total: int) -> tuple[int, int]:
    """The smallest range of rows that includes [start, stop) and whole pairs only, of a batch of `total` rows."""
    return start - start % 2, min(total, stop + stop % 2)


def partner_rows(batch: Batch) -> Tensor:
    """The row of `batch.source` that is the partner of each row of `batch`, int64 [B] on the device of the batch.

    The last of an odd number of rows of a global batch is its own partner.

    Raises:
        ValueError: `batch.source` lacks a partner: the batch is of a loader without `whole_pairs`.
    """
    source, first = batch.source, batch.first_row
    start, stop = extend_to_pairs(first, first + len(batch), batch.global_size)
    if start < source.first_row or stop > source.first_row + len(source):
        raise ValueError(f"rows {start} to {stop - 1} are mixed, and the loader did not load all: set whole_pairs")
    rows = torch.arange(first, first + len(batch), device=batch.images.device)
    return (rows ^ 1).clamp_(max=batch.global_size - 1) - source.first_row
