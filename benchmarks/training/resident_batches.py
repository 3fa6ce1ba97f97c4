"""Batches in memory as a BatchSource, so that a benchmark measures the training loop and not the loader."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.loading.batch import Batch
from pipeline.loading.loader_facts import LoaderFacts
from pipeline.loading.part_times import PartTimes
from pipeline.loading.policies.base import SamplingPolicy
from pipeline.loading.quarantine import Quarantine

Pair = tuple[Tensor, Tensor]
"""uint8 images [B, C, H, W] and labels [B]."""


class ResidentPolicy:
    """Draws the first rows for each batch; its state is empty."""

    version = 0

    def __init__(self, global_batch: int) -> None:
        self.global_batch = global_batch

    def batch(self, step: int) -> NDArray[np.int64]:
        return np.arange(self.global_batch)

    def epoch(self, step: int) -> int:
        return 0

    def ready_until(self) -> int | None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class ResidentSource:
    """Gives these pairs, from the first of them, as the batches of the steps.

    Args:
        steps: (number of a batch, pair); each is requested when its step begins.
        batch: number of images in a pair.
        side: of an image, in pixels.
    """

    quarantine: Quarantine | None = None
    lost_processes = 0

    def __init__(self, steps: Iterable[tuple[int, Pair]], batch: int, side: int) -> None:
        self.policy: SamplingPolicy = ResidentPolicy(batch)
        self.times = PartTimes()
        self._steps = steps
        self._rows = torch.arange(batch)
        self._side = side

    def batches(self, start_step: int, stop_step: int) -> Generator[Batch]:
        for number, (images, labels) in self._steps:
            step = start_step + number
            yield Batch(images, self._rows, labels, self._rows, None, step, 0, len(self._rows))

    def facts(self) -> LoaderFacts:
        return LoaderFacts(threads=0, processes=0, remote=False, side=self._side, stored_side=self._side)

    def close(self) -> None:
        pass
