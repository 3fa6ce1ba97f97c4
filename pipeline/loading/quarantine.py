"""Quarantine: the damaged samples of a training, their substitutes, and the limit on their number.

A sample is damaged if two reads give bytes with another hash than the index has, if its shard is missing or too
short, or if bytes with the right hash cannot be decoded. It is not trained on. It is replaced in the batch by a sample
of a later step's batch: the first of `substitutes` that can be read. `substitutes` depends on the seed, step, slot and
policy only, not on the damaged samples found so far, which differ between workers. So the global batch is the same on
any number of workers, and in a resumed run unless a shard was damaged or repaired in between.
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
# Number of later steps whose batches are tried. With 1 % of the samples damaged, one nearly always suffices.
_MAX_LATER_STEPS = 8


class DamagedSampleError(DamagedError):
    """A sample that cannot be read as it was written.

    Args:
        id: its row in the index.
        shard, key, byte: name of the shard, key of the sample, and offset of its first byte.
        reason: what is wrong.
        advice: what to do.
    """

    def __init__(self, id: int, shard: str, key: str, byte: int, reason: str, advice: str = "") -> None:
        super().__init__(f"{shard}, sample {key} at byte {byte}: {reason}{'; ' if advice else ''}{advice}")
        self.id, self.shard, self.key, self.byte, self.reason, self.advice = id, shard, key, byte, reason, advice


@dataclass(frozen=True, slots=True)
class QuarantinedSample:
    """A line of quarantine.jsonl: a damaged sample.

    Attributes:
        sample: its row in the index.
        step: the first step that drew it.
    """

    sample: int
    shard: str
    key: str
    byte: int
    reason: str
    step: int


class Quarantine:
    """The damaged samples of a training, each once.

    Args:
        samples: number of training samples.
        max_share: largest fraction of them that may be damaged; more stop the training.
    """

    def __init__(self, samples: int, max_share: float) -> None:
        self._samples = samples
        self._max_share = max_share
        # 0.29 * 100 is 28.999999999999996.
        self._allowed = int(max_share * samples + 1e-6)
        self._found: dict[int, QuarantinedSample] = {}
        self._unreported: list[QuarantinedSample] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, error: DamagedSampleError, step: int) -> None:
        """Records a damaged sample.

        Raises:
            DamagedError: too many samples are damaged.
        """
        if error.id in self._found:
            return
        entry = QuarantinedSample(error.id, error.shard, error.key, error.byte, error.reason, step)
        _log.warning("step %d: left out: %s", step, error)
        self._unreported.append(entry)
        self._add(entry)

    def unreported(self) -> list[dict[str, Any]]:
        """The samples recorded since the last call, as JSON values, to be sent to other workers."""
        unreported, self._unreported = self._unreported, []
        return [asdict(entry) for entry in unreported]

    def merge(self, lines: Iterable[dict[str, Any]]) -> None:
        """Adds the samples that other workers recorded, or an earlier process of this training.

        Raises:
            DamagedError: too many samples are damaged.
        """
        for line in lines:
            self._add(QuarantinedSample(**line))

    def lines(self) -> list[dict[str, Any]]:
        """All recorded samples, as JSON values, in the order of the steps."""
        entries = sorted(self._found.values(), key=lambda entry: (entry.step, entry.sample))
        return [asdict(entry) for entry in entries]

    def _add(self, entry: QuarantinedSample) -> None:
        known = self._found.get(entry.sample)
        if known is None or entry.step < known.step:
            self._found[entry.sample] = entry
        if len(self._found) > self._allowed:
            raise DamagedError(
                f"{len(self._found)} of {self._samples:,} training samples are damaged, {self._allowed} may be "
                f"(loader.max_damaged_share={self._max_share}); {entry.shard}, sample {entry.key} at byte "
                f"{entry.byte}: {entry.reason}; fix the shards, or allow more"
            )


def substitutes(policy: SamplingPolicy, seed: int, step: int, slot: int) -> Iterator[int]:
    """Substitutes for a sample of a step's global batch, the best first; a pure function of its arguments.

    They come from the batches of the next steps, so they have the policy's distribution; samples that are already
    in the step's batch come last.

    Args:
        slot: position of the sample in the global batch.
    """
    batch = policy.batch(step)
    limit = policy.ready_until()
    for later in range(1, _MAX_LATER_STEPS + 1):
        # No batch is known beyond the next refresh.
        if limit is not None and step + later >= limit:
            break
        later_batch = generator(seed, "substitute", step, slot, later).permutation(policy.batch(step + later))
        yield from later_batch[~np.isin(later_batch, batch)].tolist()
    yield from generator(seed, "substitute", step, slot).permutation(batch).tolist()
