"""Splits a batch into micro-batches, for gradient accumulation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from pipeline.loading.batch import Batch


def split(batch: Batch, count: int) -> Iterator[Batch]:
    """Splits a batch into `count` micro-batches of consecutive rows, or fewer if the batch has fewer rows.

    Sizes differ by at most one row.
    """
    rows = len(batch)
    count = max(1, min(count, rows))
    if count == 1:
        yield batch
        return
    edges = [rows * part // count for part in range(count + 1)]
    for start, stop in pairwise(edges):
        yield batch.rows(start, stop)
