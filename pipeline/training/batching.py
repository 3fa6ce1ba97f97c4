"""Splits a batch into micro-batches, for gradient accumulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from pipeline.loading.batch import Batch


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """Splits a batch into `parts` micro-batches of consecutive rows, or fewer if the batch has fewer rows.

    Sizes differ by at most two rows. Micro-batches start at even rows if possible: mixing pairs rows 2i and 2i + 1.
    """
    rows = len(batch.ids)
    parts = max(1, min(parts, rows))
    if parts == 1:
        yield batch
        return
    unit = 2 if rows >= 2 * parts else 1
    units = -(-rows // unit)
    edges = [min(rows, unit * (units * part // parts)) for part in range(parts + 1)]
    for start, stop in pairwise(edges):
        columns = {name: column[start:stop] for name, column in batch.columns.items()}
        yield replace(batch, columns=columns, **{name: value[start:stop] for name, value in _tensors(batch)})


def _tensors(batch: Batch) -> Iterator[tuple[str, Any]]:
    for item in fields(batch):
        value = getattr(batch, item.name)
        if isinstance(value, Tensor):
            yield item.name, value
