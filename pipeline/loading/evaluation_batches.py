"""Batches to measure on: given samples, in order, as they are stored; a damaged one is an error, never left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.loading.batch import Batch, column_tensor
from pipeline.loading.captions import chosen_captions
from pipeline.loading.decode_pool import DecodePool
from pipeline.loading.reader import SampleReader
from pipeline.loading.tokenizer import CaptionTokenizer
from pipeline.sharding.format.index import SampleIndex

_AHEAD = 2


class HeldBatches:
    """Batches that are measured on again and again: kept decoded as far as they fit, the rest is decoded each time.

    Args:
        batches: gives the batches of some samples.
        ids: all of them.
        megabytes: of images are kept, and at least one batch.
    Raises:
        DamagedSampleError: one of those that are kept is damaged; of the others, whoever comes to it hears of it.
    """

    def __init__(
        self, batches: Callable[[NDArray[np.int64]], Generator[Batch]], ids: NDArray[np.int64], megabytes: int
    ) -> None:
        self._batches = batches
        self._held: list[Batch] = []
        left, rows = megabytes * 1_000_000, 0
        with closing(batches(ids)) as decoded:
            for batch in decoded:
                self._held.append(batch)
                rows += len(batch)
                left -= batch.images.nbytes
                if left <= 0:
                    break
        self._others = ids[rows:]

    def __iter__(self) -> Iterator[Batch]:
        yield from self._held
        if len(self._others):
            yield from self._batches(self._others)


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
) -> Generator[Batch]:
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
