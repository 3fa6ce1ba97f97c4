"""The choice of one caption for each sample."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.counter_rng import uniforms
from pipeline.sharding.format.index import SampleIndex

CaptionChoice = Literal["first", "random"]


def choose_captions(
    index: SampleIndex, ids: NDArray[np.int64], choice: CaptionChoice, *, seed: int = 0, epoch: int = 0
) -> list[str]:
    """One caption for each sample: its first, or one drawn for each epoch; "" for a sample without captions."""
    if choice == "first":
        return [next(iter(index.captions(id)), "") for id in ids.tolist()]
    draws = uniforms(seed, "caption", epoch, ids, 1)[:, 0]
    chosen = []
    for id, draw in zip(ids.tolist(), draws, strict=True):
        captions = index.captions(id)
        chosen.append(captions[int(draw * len(captions))] if captions else "")
    return chosen
