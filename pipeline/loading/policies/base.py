"""The protocol of sampling policies: the samples of each step's global batch.

A batch is a pure function of (config, step, state). So a loader saves only its step, every rank plans the same global
batch without communication, and a killed run resumes with the batches it would have had. Most policies have no state;
a curriculum has one, which changes only at a refresh.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError


class SamplingPolicy(Protocol):
    """Chooses the samples of each step.

    Attributes:
        global_batch: G, samples in a global batch.
        version: incremented at each refresh of the state; stored in each batch.
    """

    global_batch: int
    version: int

    def batch(self, step: int) -> NDArray[np.int64]:
        """Ids of the GLOBAL batch of a step, int64 [G]; a rank takes its slice (`rank_slice`)."""

    def epoch(self, step: int) -> int:
        """The number that with seed and sample determines the augmentation of a step's batch.

        It is the epoch of the batch's first sample. A batch that spans two epochs is augmented with the
        number of the earlier one; so a sample can have the same view twice, but never different views on two workers.
        """

    def ready_until(self) -> int | None:
        """The first step whose batch depends on a refresh that has not happened; None: no limit.

        The loader does not plan this step or later ones, so no batch is drawn from a stale state.
        """

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, as JSON values; {} for a policy without state."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores a saved state."""


class StatelessPolicy:
    """The methods about state, for a policy without one."""

    version = 0

    def ready_until(self) -> int | None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Steps until a shuffled epoch has shown every sample at least once; at least 1."""
    return max(1, -(-samples // global_batch))


def check_samples(rows: NDArray[np.int64], global_batch: int) -> None:
    """Checks that there are samples and that the batch is not empty.

    Raises:
        InputError: there are no samples, or the batch would be empty.
    """
    if len(rows) == 0:
        raise InputError("there are no samples to train on: the split is empty; see the data card of the shards")
    if global_batch < 1:
        raise InputError(f"global_batch: must be at least 1 (got {global_batch})")
