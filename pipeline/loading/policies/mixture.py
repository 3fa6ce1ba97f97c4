"""Mixture: several data sets in one stream, each with its share of every batch, each in its own epochs.

    quotas   the turns of a batch are dealt to the data sets by weight, to within one sample from the first step on
    order    a data set gives its own stream of epochs, in which each of its samples comes once an epoch
    batch    the data sets' samples are spread evenly over it, then shuffled among neighbours: every rank has all of
             them, and neighbours, which mixup blends, are of one data set as often as of two

A data set that is small and weighs much comes often: its samples are augmented anew each time, since `epoch` counts the
laps of the data set that is through soonest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import Config
from pipeline.counter_rng import generator
from pipeline.errors import InputError, UnknownNameError
from pipeline.loading.policies.base import StatelessPolicy
from pipeline.loading.policies.quotas import Quotas
from pipeline.loading.policies.row_runs import RowRuns
from pipeline.loading.policies.shuffled import Shuffled, ShuffledConfig
from pipeline.loading.policies.streams import Streams, StreamsConfig

if TYPE_CHECKING:
    from pipeline.sharding.format.index import SampleIndex

# Neighbours that are shuffled among each other: few, so that a rank still reads from its own streams.
_NEIGHBOURS = 16


class MixtureConfig(Config):
    """A weighted mixture of the data sets that mix-datasets put together."""

    kind: Literal["mixture"] = Field("mixture", description="Several data sets, each with its share of every batch.")
    weights: dict[str, Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]] = Field(
        {}, description="Name of each data set: its weight, 0 leaves it out; empty: by size, see temperature."
    )
    temperature: float = Field(
        1.0, ge=1, le=1e6, description="Without weights: a data set of n samples weighs n^(1/temperature); 1: as it is."
    )
    order: Annotated[ShuffledConfig | StreamsConfig, Field(discriminator="kind")] = Field(
        ShuffledConfig(), description="Of the samples of each data set."
    )

    def build(self, index: SampleIndex, rows: RowRuns, global_batch: int, seed: int) -> Mixture:
        """The policy over the samples `rows` of the index.

        Raises:
            InputError: the index is of one data set, the weights are not those of its data sets, or one that has a
                weight has no samples.
        """
        if not index.data_sets:
            raise InputError("policy mixture: the shards are of one data set; put several together: mixture={...}")
        parts = {one.name: rows.within(one.first, one.last) for one in index.data_sets}
        weights = self.weights_of({name: len(part) for name, part in parts.items()})
        policies: list[Shuffled | Streams] = []
        for name in weights:
            # Two data sets of one size must not be shuffled alike.
            own = int(generator(seed, f"mixture-{name}").integers(0, 2**31))
            policies.append(self.order.build(index, parts[name], global_batch, own))
        return Mixture(policies, [len(parts[name]) for name in weights], list(weights.values()), global_batch, seed)

    def weights_of(self, samples: Mapping[str, int]) -> dict[str, float]:
        """The weight of each data set that is drawn from.

        Args:
            samples: name -> how many there are to train on.
        Raises:
            InputError: see `build`.
        """
        if not self.weights:
            return {name: count ** (1 / self.temperature) for name, count in samples.items() if count}
        for name in self.weights:
            if name not in samples:
                raise UnknownNameError("data set in policy.weights", name, samples)
        for name, count in samples.items():
            if name not in self.weights:
                raise InputError(f"policy.weights: says nothing of the data set {name!r}; 0 leaves it out")
            if self.weights[name] and not count:
                raise InputError(f"policy.weights: the data set {name!r} has no samples to train on; give it weight 0")
        drawn = {name: weight for name, weight in self.weights.items() if weight}
        if not drawn:
            raise InputError("policy.weights: every weight is 0")
        return drawn


class Mixture(StatelessPolicy):
    """Streams of samples, interleaved by weight.

    Args:
        parts: the stream of each data set.
        samples: of each data set: how long its epoch is.
        weights: of the data sets, above 0.
        global_batch: G.
        seed: of the run.

    Attributes:
        samples_per_epoch: of all data sets, until the largest was shown once: what an epoch of a training is.
    """

    def __init__(
        self,
        parts: list[Shuffled | Streams],
        samples: list[int],
        weights: list[float],
        global_batch: int,
        seed: int,
    ) -> None:
        if not parts:
            raise InputError("there are no samples to train on: every data set's split is empty")
        self.global_batch = global_batch
        self._parts = parts
        self._samples = np.array(samples, np.int64)
        self._seed = seed
        self._quotas = Quotas(weights)
        largest = int(np.argmax(self._samples))
        self.samples_per_epoch = max(1, round(self._samples[largest] / self._quotas.shares[largest]))
        self._fastest = int(np.argmax(self._quotas.shares / self._samples))

    def batch(self, step: int) -> NDArray[np.int64]:
        first = self._quotas.before(step * self.global_batch)
        last = self._quotas.before((step + 1) * self.global_batch)
        ids = [part.ids(*bounds) for part, *bounds in zip(self._parts, first.tolist(), last.tolist(), strict=True)]
        # Sample j of n is put at (j + 1/2) / n of the batch, then drawn to a place among its neighbours.
        places = np.concatenate([(np.arange(len(one)) + 0.5) / max(1, len(one)) for one in ids])
        spread = np.argsort(places, kind="stable")
        block = np.arange(self.global_batch) // _NEIGHBOURS
        draws = generator(self._seed, "mixture-batch", step).random(self.global_batch)
        return np.concatenate(ids)[spread[np.argsort(block + draws, kind="stable")]]

    def epoch(self, step: int) -> int:
        """As in the protocol, for the data set that is through soonest."""
        laps = self._quotas.before(step * self.global_batch) // self._samples
        return int(laps[self._fastest])


def samples_per_epoch(policy: object, rows: int) -> int:
    """What an epoch of a training is, in samples: all rows once, or what a mixture says."""
    return policy.samples_per_epoch if isinstance(policy, Mixture) else rows
