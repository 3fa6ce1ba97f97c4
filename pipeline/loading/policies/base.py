"""The sampling policy protocol: which samples make the global batch of a step.

A batch is a pure function of (config, step, state). So a loader has nothing to save but its step,
every rank plans the same global batch without talking to the others, and a run that was killed sees
the batches it would have seen. Most policies have no state; a curriculum has one, which changes
only at a refresh.
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
        version: raised by one at each refresh of the state; batches carry it.
    """

    global_batch: int
    version: int

    def batch(self, step: int) -> NDArray[np.int64]:
        """Ids of the GLOBAL batch of a step, int64 [G]; a rank takes its slice (`rank_slice`)."""

    def epoch(self, step: int) -> int:
        """The counter that keys the augmentations of a step's batch, together with (seed, sample).

        It is the epoch of the batch's first sample. A batch that straddles two epochs is augmented
        as one of the earlier, all of it; a sample can therefore look the same twice, never differ
        between two workers.
        """

    def ready_until(self) -> int | None:
        """The first step whose batch depends on a refresh that has not happened; None: no limit.

        The loader never plans this step or a later one, so a batch is never made from a stale state.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold, as JSON values; {} for a policy without state."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Puts a saved state back."""


class StatelessPolicy:
    """What a policy without state says of it."""

    version = 0

    def ready_until(self) -> int | None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Steps after which every sample of a shuffled epoch was seen at least once; at least 1."""
    return max(1, -(-samples // global_batch))


def check_samples(rows: NDArray[np.int64], global_batch: int) -> None:
    """Refuses to sample from nothing.

    Raises:
        InputError: there are no samples, or the batch would be empty.
    """
    if len(rows) == 0:
        raise InputError("there are no samples to train on: the split is empty; look at the data card of the shards")
    if global_batch < 1:
        raise InputError(f"global_batch: must be at least 1 (got {global_batch})")
