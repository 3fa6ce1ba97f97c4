"""Evaluation batches: given samples, in order, without augmentation; a damaged sample is an error."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.loading.batch import Batch, column_tensor
from pipeline.loading.captions import choose_captions
from pipeline.loading.decode_pool import DecodePool
from pipeline.loading.reader import SampleReader
from pipeline.loading.tokenizer import CaptionTokenizer
from pipeline.sharding.format.index import SampleIndex

_MAX_PENDING = 2  # batches that are decoded at once


class CachedBatches:
    """Batches for repeated evaluations: decoded ones are cached up to a size, the rest are decoded each time.

    Args:
        batches: returns the batches of given samples.
        ids: ids of all samples.
        megabytes: limit on the size of the cached images; at least one batch is cached.
    Raises:
        DamagedSampleError: a cached sample is damaged; for the others it is raised during iteration.
    """

    def __init__(
        self, batches: Callable[[NDArray[np.int64]], Generator[Batch]], ids: NDArray[np.int64], megabytes: int
    ) -> None:
        self._batches = batches
        self._cached: list[Batch] = []
        bytes_left, rows = megabytes * 1_000_000, 0
        with closing(batches(ids)) as decoded:
            for batch in decoded:
                self._cached.append(batch)
                rows += len(batch)
                bytes_left -= batch.images.nbytes
                if bytes_left <= 0:
                    break
        self._uncached_ids = ids[rows:]

    def __iter__(self) -> Iterator[Batch]:
        yield from self._cached
        if len(self._uncached_ids):
            yield from self._batches(self._uncached_ids)


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
    """The samples `ids`, in this order, resized without augmentation; the last batch may be smaller.

    A batch has the first caption of each sample; its `step` is its position, from 0.

    Raises:
        DamagedSampleError: a sample is damaged; a metric over the others would be a different metric.
    """
    chunks = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    with DecodePool(reader, channels=channels, threads=threads) as pool:
        pending = deque(pool.submit(chunk, image_size) for chunk in chunks[:_MAX_PENDING])
        for step, chunk in enumerate(chunks):
            images = pending.popleft().wait()
            if step + _MAX_PENDING < len(chunks):
                pending.append(pool.submit(chunks[step + _MAX_PENDING], image_size))
            yield Batch(
                images=images,
                ids=torch.from_numpy(np.array(chunk, np.int64)),
                labels=column_tensor(index.labels, chunk),
                groups=column_tensor(index.groups, chunk),
                tokens=tokenizer.encode(choose_captions(index, chunk, "first")) if tokenizer else None,
                step=step,
                policy_version=0,
                global_size=len(chunk),
            )
