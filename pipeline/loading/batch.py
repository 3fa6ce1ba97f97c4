"""Batch: the input of a task; and the split of a global batch among ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.sharding.format.joined_columns import JoinedColumns


@dataclass(frozen=True)
class Batch:
    """One rank's slice of a global batch.

    Attributes:
        images: uint8 [B, C, H, W]; the task normalises them, on the device.
        ids: int64 [B], row numbers of the index.
        labels: int64 [B]; -1 for a sample without a label.
        groups: int64 [B], content groups: samples of one group show the same thing.
        tokens: int64 [B, L], one caption for each sample; None if the loader has no tokenizer.
        step: the training step; in evaluation, the number of the batch.
        policy_version: the policy's version when the batch was planned.
        global_size: samples in the batches of all ranks together.
        columns: joined columns of numbers by name, float32 or int64, [B] or [B, D]; NaN or -1 for a sample
            without a value.
        first_row: position of the first row in the global batch.
        cut_from: the batch of which this is a slice; None: it is not one.
    """

    images: Tensor
    ids: Tensor
    labels: Tensor
    groups: Tensor
    tokens: Tensor | None
    step: int
    policy_version: int
    global_size: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    first_row: int = 0
    cut_from: Batch | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def source(self) -> Batch:
        """The batch of which this is a slice, else this one."""
        return self if self.cut_from is None else self.cut_from

    def rows(self, start: int, stop: int) -> Batch:
        """The slice of rows [start, stop), which shares the memory of this batch and refers to `source`."""
        cut = slice(start, stop)
        return replace(
            self,
            images=self.images[cut],
            ids=self.ids[cut],
            labels=self.labels[cut],
            groups=self.groups[cut],
            tokens=None if self.tokens is None else self.tokens[cut],
            columns={name: column[cut] for name, column in self.columns.items()},
            first_row=self.first_row + start,
            cut_from=self.source,
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`; copies from pinned memory do not block."""
        if self.cut_from is not None:
            start = self.first_row - self.cut_from.first_row
            return self.cut_from.to(device).rows(start, start + len(self))
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            ids=self.ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            groups=self.groups.to(device, non_blocking=True),
            tokens=None if self.tokens is None else self.tokens.to(device, non_blocking=True),
            columns={name: column.to(device, non_blocking=True) for name, column in self.columns.items()},
        )


def on_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """Copies the values to a device. Unlike a plain copy, this does not wait for the earlier work of a GPU.

    The array may be freed at once: CUDA has copied pageable memory before the call returns.
    """
    return torch.from_numpy(values).to(device, non_blocking=True)


def rank_rows(total: int, rank: int, world: int) -> tuple[int, int]:
    """The first row, and the end, of one rank's contiguous slice of a global batch of `total` rows.

    Sizes differ by at most one. The slices of ranks 0, 1, ... concatenated are the global batch.
    """
    return total * rank // world, total * (rank + 1) // world


def rank_slice(ids: NDArray[np.int64], rank: int, world: int) -> NDArray[np.int64]:
    """The slice of a global batch for one rank; see `rank_rows`."""
    return ids[slice(*rank_rows(len(ids), rank, world))]


def column_tensor(values: NDArray[np.int32], ids: NDArray[np.int64]) -> Tensor:
    """The values of an index column at these rows, int64 [len(ids)]."""
    return torch.from_numpy(values[ids].astype(np.int64))


def joined_tensors(columns: JoinedColumns | None, ids: NDArray[np.int64]) -> dict[str, Tensor]:
    """The values of all joined numeric columns at these rows, by name; empty without joined columns."""
    if columns is None:
        return {}
    return {name: torch.from_numpy(values) for name, values in columns.batch(ids).items()}
