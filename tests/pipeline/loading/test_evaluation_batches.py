"""Evaluation images that do not fit the memory given are decoded again, and the batches are the same."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.loading.evaluation_batches import CachedBatches, evaluation_batches
from pipeline.loading.reader import SampleReader


class CountingReader(SampleReader):
    """Remembers what was read."""

    asked: list[int]

    def read(self, id: int, *, fresh: bool = False) -> bytes:
        self.asked.append(id)
        return super().read(id, fresh=fresh)


IDS = np.arange(60)  # A batch of 8 takes 1.6 MB.


@pytest.mark.parametrize(("megabytes", "held"), [(0, 8), (1, 8), (2, 16), (4, 24), (1000, 60)])
def test_what_does_not_fit_is_decoded_each_time(shards: Any, megabytes: int, held: int) -> None:
    reader = CountingReader(shards.artifact, shards.index)
    reader.asked = []
    batches = partial(evaluation_batches, reader, shards.index, image_size=256, batch_size=8, threads=1)
    expected = list(batches(IDS))
    reader.asked.clear()
    kept = CachedBatches(batches, IDS, megabytes)
    for _ in range(3):
        reader.asked.clear()
        found = list(kept)
        assert sorted(reader.asked) == list(range(held, 60))
        assert [batch.ids.tolist() for batch in found] == [batch.ids.tolist() for batch in expected]
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_no_samples_are_no_batches(shards: Any) -> None:
    reader = SampleReader(shards.artifact, shards.index)
    batches = partial(evaluation_batches, reader, shards.index, image_size=16, batch_size=8)
    assert list(CachedBatches(batches, IDS[:0], 10)) == []
