"""Mixture: several data sets in one stream, each with its share of every batch and with its own epochs.

    quotas   the slots of a batch are assigned to the data sets by weight, to within one sample from the first step on
    order    a data set is a stream of its own epochs, in which each of its samples occurs once
    batch    the samples of each data set are spread evenly over it, then shuffled among neighbours: every rank has
             samples of all data sets, and neighbours, which mixup blends, are of one data set as often as of two

A small data set with a large weight is repeated often; its samples have a new view each time, since `epoch` counts the
epochs of the data set that finishes first.
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

# Number of neighbours that are shuffled together: small, so that a rank still reads from its own streams.
_NEIGHBOURS = 16


class MixtureConfig(Config):
    """Weighted sampling from the data sets of a mixture."""

    kind: Literal["mixture"] = Field(
        "mixture", description="Weighted mixture of several data sets: each batch has samples of all of them."
    )
    weights: dict[str, Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]] = Field(
        {},
        description="Sampling weight of each data set by name; 0 leaves it out. {}: weights follow from the "
        "sizes, see temperature.",
    )
    temperature: float = Field(
        1.0,
        ge=1,
        le=1e6,
        description="Without weights: a data set with n samples has weight n^(1/temperature). 1: in proportion to"
        " size; higher: closer to uniform.",
    )
    order: Annotated[ShuffledConfig | StreamsConfig, Field(discriminator="kind")] = Field(
        ShuffledConfig(), description="How the samples of each data set are shuffled."
    )

    def build(self, index: SampleIndex, rows: RowRuns, global_batch: int, seed: int) -> Mixture:
        """The policy over the samples `rows` of the index.

        Raises:
            InputError: the index has one data set, the weights do not match its data sets, or a data set with a
                weight has no samples.
        """
        if not index.data_sets:
            raise InputError("policy mixture: the shards are of one data set; combine several: mixture={...}")
        rows_of = {data_set.name: rows.within(data_set.start, data_set.stop) for data_set in index.data_sets}
        weights = self.weights_of({name: len(own_rows) for name, own_rows in rows_of.items()})
        policies: list[Shuffled | Streams] = []
        for name in weights:
            # Two data sets of the same size must not be shuffled alike.
            own_seed = int(generator(seed, f"mixture-{name}").integers(0, 2**31))
            policies.append(self.order.build(index, rows_of[name], global_batch, own_seed))
        return Mixture(policies, [len(rows_of[name]) for name in weights], list(weights.values()), global_batch, seed)

    def weights_of(self, samples: Mapping[str, int]) -> dict[str, float]:
        """The weights above 0, by name of the data set.

        Args:
            samples: name -> number of training samples.
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
                raise InputError(f"policy.weights: no weight for the data set {name!r}; give one, or 0 to leave it out")
            if self.weights[name] and not count:
                raise InputError(f"policy.weights: the data set {name!r} has no samples to train on; give it weight 0")
        drawn = {name: weight for name, weight in self.weights.items() if weight}
        if not drawn:
            raise InputError("policy.weights: every weight is 0; give one above 0")
        return drawn


class Mixture(StatelessPolicy):
    """Streams of samples, interleaved by weight.

    Args:
        streams: the stream of each data set.
        samples: number of samples of each data set, the length of its epoch.
        weights: weights of the data sets, above 0.
        global_batch: G.
        seed: the run's random seed.

    Attributes:
        samples_per_epoch: number of samples drawn until each sample of the largest data set was drawn once, which is an
            epoch of the training.
    """

    def __init__(
        self,
        streams: list[Shuffled | Streams],
        samples: list[int],
        weights: list[float],
        global_batch: int,
        seed: int,
    ) -> None:
        if not streams:
            raise InputError("there are no samples to train on: every data set's split is empty")
        self.global_batch = global_batch
        self._streams = streams
        self._samples = np.array(samples, np.int64)
        self._seed = seed
        self._quotas = Quotas(weights)
        largest = int(np.argmax(self._samples))
        self.samples_per_epoch = max(1, round(self._samples[largest] / self._quotas.shares[largest]))
        self._fastest = int(np.argmax(self._quotas.shares / self._samples))

    def batch(self, step: int) -> NDArray[np.int64]:
        first = self._quotas.before(step * self.global_batch)
        last = self._quotas.before((step + 1) * self.global_batch)
        ids = [
            stream.ids(*bounds) for stream, *bounds in zip(self._streams, first.tolist(), last.tolist(), strict=True)
        ]
        # Sample j of n gets the position (j + 1/2) / n in the batch, then is shuffled among its neighbours.
        positions = np.concatenate([(np.arange(len(own_ids)) + 0.5) / max(1, len(own_ids)) for own_ids in ids])
        spread = np.argsort(positions, kind="stable")
        block = np.arange(self.global_batch) // _NEIGHBOURS
        draws = generator(self._seed, "mixture-batch", step).random(self.global_batch)
        return np.concatenate(ids)[spread[np.argsort(block + draws, kind="stable")]]

    def epoch(self, step: int) -> int:
        """As in the protocol, for the data set that finishes first."""
        laps = self._quotas.before(step * self.global_batch) // self._samples
        return int(laps[self._fastest])


def samples_per_epoch(policy: object, rows: int) -> int:
    """Samples in an epoch of a training: all rows once, or as a mixture defines it."""
    return policy.samples_per_epoch if isinstance(policy, Mixture) else rows
