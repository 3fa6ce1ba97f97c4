"""Quarantine: the damaged samples of a training, what stands in for them, and how many are too many.

A sample is damaged if its bytes are not those of the index after they were read again, if its shard ends before it
or is gone, or if right bytes cannot be decoded. It is never trained on. Its slot of a batch goes to a sample of the
next step's batch (`substitutes`): a pure function of (seed, step, slot), of the policy's state, and of which samples
are damaged when they are read. So the global batch is the same on any number of workers, and in a resumed run. What
is not promised: if the damage heals or grows between a run and its resumption, the batches from there on are those of
the samples as they are then. No memory of damaged samples decides: it would differ between workers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.counter_rng import generator
from pipeline.errors import DamagedError
from pipeline.loading.policies.base import SamplingPolicy

_log = logging.getLogger("tutelage.loading")

FILE = "quarantine.jsonl"
# Steps whose batches are tried before a slot is given up: with a damaged share of 1 %, one nearly always does.
_STEPS_TRIED = 8


class DamagedSampleError(DamagedError):
    """A sample that cannot be had as it was written.

    Args:
        id: its row in the index.
        shard, key, byte: where it lies: the shard's name, its name there, its first byte.
        reason: what is wrong.
        advice: what to do about it.
    """

    def __init__(self, id: int, shard: str, key: str, byte: int, reason: str, advice: str = "") -> None:
        super().__init__(f"{shard}, sample {key} at byte {byte}: {reason}{'; ' if advice else ''}{advice}")
        self.id, self.shard, self.key, self.byte, self.reason, self.advice = id, shard, key, byte, reason, advice

    def __reduce__(self) -> tuple[type[DamagedSampleError], tuple[Any, ...]]:
        # Workers send their errors to the driver.
        return type(self), (self.id, self.shard, self.key, self.byte, self.reason, self.advice)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A line of quarantine.jsonl: a damaged sample, and the first step that wanted it."""

    sample: int
    shard: str
    key: str
    byte: int
    reason: str
    step: int


class Quarantine:
    """The damaged samples that a training found, each once.

    Args:
        samples: that are trained on.
        max_share: of them may be damaged; one more stops the training.
    """

    def __init__(self, samples: int, max_share: float) -> None:
        self._samples = samples
        self._max_share = max_share
        # 0.29 * 100 is 28.999999999999996.
        self._allowed = int(max_share * samples + 1e-6)
        self._found: dict[int, Quarantined] = {}
        self._untold: list[Quarantined] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, error: DamagedSampleError, step: int) -> None:
        """A damaged sample was met.

        Raises:
            DamagedError: there are too many by now.
        """
        if error.id in self._found:
            return
        one = Quarantined(error.id, error.shard, error.key, error.byte, error.reason, step)
        _log.warning("step %d: left out: %s", step, error)
        self._untold.append(one)
        self._take(one)

    def untold(self) -> list[dict[str, Any]]:
        """What was found since the last call, as JSON values: what other workers have to hear."""
        told, self._untold = self._untold, []
        return [asdict(one) for one in told]

    def merge(self, lines: Iterable[dict[str, Any]]) -> None:
        """Takes in what other workers found, or an earlier process of this training.

        Raises:
            DamagedError: there are too many by now.
        """
        for line in lines:
            self._take(Quarantined(**line))

    def lines(self) -> list[dict[str, Any]]:
        """Everything found, as JSON values, in the order of the steps."""
        return [asdict(one) for one in sorted(self._found.values(), key=lambda one: (one.step, one.sample))]

    def _take(self, one: Quarantined) -> None:
        known = self._found.get(one.sample)
        if known is None or one.step < known.step:
            self._found[one.sample] = one
        if len(self._found) > self._allowed:
            raise DamagedError(
                f"{len(self._found)} of {self._samples:,} training samples are damaged, {self._allowed} may be "
                f"(loader.max_damaged_share={self._max_share}); {one.shard}, sample {one.key} at byte {one.byte}: "
                f"{one.reason}; mend the shards, or allow more"
            )


def substitutes(policy: SamplingPolicy, seed: int, step: int, slot: int) -> Iterator[int]:
    """Ids that may stand in for a sample of a step's global batch, the best first; a pure function of its arguments.

    They come from the batches of the next steps, so they are samples that the policy draws, and as often; those
    that the step has anyway come last.

    Args:
        slot: place of the sample in the global batch.
    """
    own = policy.batch(step)
    limit = policy.ready_until()
    for later in range(1, _STEPS_TRIED + 1):
        # Behind a refresh no batch is known yet.
        if limit is not None and step + later >= limit:
            break
        other = generator(seed, "substitute", step, slot, later).permutation(policy.batch(step + later))
        yield from other[~np.isin(other, own)].tolist()
    yield from generator(seed, "substitute", step, slot).permutation(own).tolist()
