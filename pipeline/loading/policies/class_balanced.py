"""ClassBalanced: rare labels as often as common ones, or in between.

The stream of samples is a sequence of cycles. In a cycle every label has a fixed number of places
(one, when all are to be equally likely), dealt in random order; a label fills its places from its
own samples, each once before any comes again. How often a label came before a step follows from
counting cycles, so a batch is a pure function of its step.
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

# Places of the rarest label in a cycle: shares are met to within 1/16 of it.
_RESOLUTION = 8


class ClassBalancedConfig(Config):
    """Labels drawn evenly."""

    kind: Literal["class-balanced"] = Field("class-balanced", description="Rare labels more often than they occur.")
    balance: Literal["equal", "square-root"] = Field(
        "equal",
        description="How often a label is drawn; equal: every label as often; square-root: in proportion to "
        "the root of its count.",
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
        seed: of the run.
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
        self._places = _places(self._counts, 0.0 if balance == "equal" else 0.5)
        self._cycle_length = int(self._places.sum())
        # Of all labels, the one that starts anew soonest: cycles until each of its samples came once.
        cycles = max(1, int((self._counts // self._places).min()))
        self._epoch_length = cycles * self._cycle_length
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self._last_cycle: tuple[int, NDArray[np.int64]] = (-1, self._rows[:0])

    def batch(self, step: int) -> NDArray[np.int64]:
        position, stop = step * self.global_batch, (step + 1) * self.global_batch
        parts = []
        while position < stop:
            cycle, start = divmod(position, self._cycle_length)
            part = self._cycle(cycle)[start : start + stop - position]
            parts.append(part)
            position += len(part)
        return np.concatenate(parts)

    def epoch(self, step: int) -> int:
        """As in the protocol; an epoch ends when the label that is repeated most starts anew.

        So an image that is shown ten times while others are shown once is augmented in ten ways.
        """
        return step * self.global_batch // self._epoch_length

    def _cycle(self, cycle: int) -> NDArray[np.int64]:
        """The ids of one cycle, in order; the last one is kept for the next batch."""
        kept_cycle, ids = self._last_cycle
        if kept_cycle != cycle:
            turns = [self._turns(label, cycle * places, places) for label, places in enumerate(self._places.tolist())]
            ids = generator(self._seed, "class-balanced", cycle).permutation(np.concatenate(turns))
            self._last_cycle = (cycle, ids)
        return ids

    def _turns(self, label: int, first: int, turns: int) -> NDArray[np.int64]:
        """The ids that a label gives at its turns first, first + 1, ..."""
        start, count = int(self._starts[label]), int(self._counts[label])
        parts = []
        stop = first + turns
        while first < stop:
            lap, offset = divmod(first, count)
            kept_lap, order = self._orders.get(label, (-1, self._rows[:0]))
            if kept_lap != lap:
                order = generator(self._seed, "class-balanced-label", label, lap).permutation(
                    self._rows[start : start + count]
                )
                self._orders[label] = (lap, order)
            part = order[offset : offset + stop - first]
            parts.append(part)
            first += len(part)
        return np.concatenate(parts)


def _places(counts: NDArray[np.int64], power: float) -> NDArray[np.int64]:
    """Places of each label in a cycle, in proportion to count ** power, in lowest terms."""
    weights = counts.astype(np.float64) ** power
    places = np.maximum(1, np.rint(_RESOLUTION * weights / weights.min())).astype(np.int64)
    return places // np.gcd.reduce(places)
