"""Splits a batch into micro-batches, for gradient accumulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from pipeline.loading.batch import Batch


def split(batch: Batch, count: int) -> Iterator[Batch]:
    """Splits a batch into `count` micro-batches of consecutive rows, or fewer if the batch has fewer rows.

    Sizes differ by at most two rows. Micro-batches start at even rows if possible: mixing pairs rows 2i and 2i + 1.
    """
    rows = len(batch.ids)
    count = max(1, min(count, rows))
    if count == 1:
        yield batch
        return
    unit = 2 if rows >= 2 * count else 1
    units = -(-rows // unit)
    edges = [min(rows, unit * (units * part // count)) for part in range(count + 1)]
    for start, stop in pairwise(edges):
        columns = {name: column[start:stop] for name, column in batch.columns.items()}
        yield replace(batch, columns=columns, **{name: value[start:stop] for name, value in _tensors(batch)})


def _tensors(batch: Batch) -> Iterator[tuple[str, Any]]:
    for tensor_field in fields(batch):
        value = getattr(batch, tensor_field.name)
        if isinstance(value, Tensor):
            yield tensor_field.name, value
