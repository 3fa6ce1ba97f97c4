"""ClassBalanced: all labels equally often, or in proportion to the square roots of their counts.

The stream of samples is a sequence of cycles. In a cycle every label has a fixed number of slots (one, if all labels
are equally likely), in random order; a label fills its slots from its own samples, each once before any is repeated.
The number of a label's slots before a step follows from counting cycles, so a batch is a pure function of its step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import Config
from pipeline.counter_rng import generator
from pipeline.errors import InputError
from pipeline.loading.policies.base import StatelessPolicy, check_samples
from pipeline.loading.policies.row_runs import RowRuns

if TYPE_CHECKING:
    from pipeline.sharding.format.index import SampleIndex

# Slots of the rarest label in a cycle; rounding to whole slots changes a label's share by at most 1/16 of it.
_MIN_SLOTS = 8


class ClassBalancedConfig(Config):
    """Class-balanced sampling."""

    kind: Literal["class-balanced"] = Field(
        "class-balanced", description="Class-balanced sampling: rare labels are drawn more often than they occur."
    )
    balance: Literal["equal", "square-root"] = Field(
        "equal",
        description="How often a label is drawn. equal: all equally often; square-root: in proportion to the "
        "square root of its number of samples.",
    )

    def build(self, index: SampleIndex, rows: RowRuns, global_batch: int, seed: int) -> ClassBalanced:
        """The policy over the samples `rows` of the index, which must all have a label."""
        ids = rows.all()
        return ClassBalanced(ids, np.asarray(index.labels)[ids], global_batch, seed, balance=self.balance)


class ClassBalanced(StatelessPolicy):
    """A stream of cycles over the labels, cut into batches.

    Args:
        rows: int64 [N], ids to sample from.
        labels: [N], their labels.
        global_batch: G.
        seed: the run's random seed.
        balance: "equal", or "square-root" of the labels' counts.
    Raises:
        InputError: a sample has no label.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        labels: NDArray[np.integer[Any]],
        global_batch: int,
        seed: int,
        *,
        balance: Literal["equal", "square-root"] = "equal",
    ) -> None:
        check_samples(rows, global_batch)
        unlabelled = int(np.count_nonzero(labels < 0))
        if unlabelled:
            raise InputError(f"class-balanced: {unlabelled} of {len(rows)} samples have no label; use kind: shuffled")
        self.global_batch = global_batch
        self._seed = seed
        by_label = np.argsort(labels, kind="stable")
        self._rows = np.asarray(rows, dtype=np.int64)[by_label]
        _, self._starts, self._counts = np.unique(labels[by_label], return_index=True, return_counts=True)
        self._slots = _slots(self._counts, 0.0 if balance == "equal" else 0.5)
        self._cycle_length = int(self._slots.sum())
        # Cycles until the label that is repeated first has shown each of its samples once.
        cycles = max(1, int((self._counts // self._slots).min()))
        self._epoch_length = cycles * self._cycle_length
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self._last_cycle: tuple[int, NDArray[np.int64]] = (-1, self._rows[:0])

    def batch(self, step: int) -> NDArray[np.int64]:
        position, stop = step * self.global_batch, (step + 1) * self.global_batch
        pieces = []
        while position < stop:
            cycle, start = divmod(position, self._cycle_length)
            piece = self._cycle(cycle)[start : start + stop - position]
            pieces.append(piece)
            position += len(piece)
        return np.concatenate(pieces)

    def epoch(self, step: int) -> int:
        """As in the protocol; an epoch ends when the most repeated label has shown all its samples.

        So an image that is shown ten times while others are shown once has ten different views.
        """
        return step * self.global_batch // self._epoch_length

    def _cycle(self, cycle: int) -> NDArray[np.int64]:
        """The ids of one cycle, in order; the last cycle is cached for the next batch."""
        cached_cycle, ids = self._last_cycle
        if cached_cycle != cycle:
            ids_of_labels = [
                self._label_ids(label, cycle * slots, slots) for label, slots in enumerate(self._slots.tolist())
            ]
            ids = generator(self._seed, "class-balanced", cycle).permutation(np.concatenate(ids_of_labels))
            self._last_cycle = (cycle, ids)
        return ids

    def _label_ids(self, label: int, first: int, slots: int) -> NDArray[np.int64]:
        """The ids that fill a label's slots first, first + 1, ..., first + slots - 1."""
        start, count = int(self._starts[label]), int(self._counts[label])
        pieces = []
        stop = first + slots
        while first < stop:
            lap, offset = divmod(first, count)
            cached_lap, order = self._orders.get(label, (-1, self._rows[:0]))
            if cached_lap != lap:
                order = generator(self._seed, "class-balanced-label", label, lap).permutation(
                    self._rows[start : start + count]
                )
                self._orders[label] = (lap, order)
            piece = order[offset : offset + stop - first]
            pieces.append(piece)
            first += len(piece)
        return np.concatenate(pieces)


def _slots(counts: NDArray[np.int64], power: float) -> NDArray[np.int64]:
    """Slots of each label in a cycle, in proportion to count ** power, in lowest terms."""
    weights = counts.astype(np.float64) ** power
    slots = np.maximum(1, np.rint(_MIN_SLOTS * weights / weights.min())).astype(np.int64)
    return slots // np.gcd.reduce(slots)
