"""Batches to measure on: given samples, in order, as they are stored; a damaged one is an error, never left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.loading.batch import Batch, column_tensor
from pipeline.loading.captions import chosen_captions
from pipeline.loading.decode_pool import DecodePool
from pipeline.loading.reader import SampleReader
from pipeline.loading.tokenizer import CaptionTokenizer
from pipeline.sharding.index import SampleIndex

_AHEAD = 2


def evaluation_batches(
    reader: SampleReader,
    index: SampleIndex,
    ids: NDArray[np.int64],
    *,
    image_size: int,
    channels: int = 3,
    batch_size: int,
    threads: int = 2,
    tokenizer: CaptionTokenizer | None = None,
) -> Iterator[Batch]:
    """The samples `ids`, in that order, resized and not varied; the last batch may be smaller.

    Captions are the first of each sample. `step` counts the batches.

    Raises:
        DamagedSampleError: a sample is damaged: a measure of the others would not be the measure that was asked for.
    """
    parts = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    with DecodePool(reader, channels=channels, threads=threads) as pool:
        pending = deque(pool.submit(part, image_size) for part in parts[:_AHEAD])
        for step, part in enumerate(parts):
            images = pending.popleft().wait()
            if step + _AHEAD < len(parts):
                pending.append(pool.submit(parts[step + _AHEAD], image_size))
            yield Batch(
                images=images,
                ids=torch.from_numpy(np.array(part, np.int64)),
                labels=column_tensor(index.labels, part),
                groups=column_tensor(index.groups, part),
                tokens=tokenizer.encode(chosen_captions(index, part, "first")) if tokenizer else None,
                step=step,
                policy_version=0,
                global_size=len(part),
            )
