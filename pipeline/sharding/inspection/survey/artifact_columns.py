"""The `ImageColumns` of a shards artifact: from its index, the sizes of its tars, and the formats of some images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import numpy as np

from pipeline.artifacts import Artifact
from pipeline.errors import TutelageError
from pipeline.pixels.formats import HEAD_BYTES, format_of
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.shard_locations import ShardLocations
from pipeline.sharding.inspection.survey.columns import ImageColumns, index_columns

_FORMAT_SAMPLE = 1000  # images of which the format is read


Read = Callable[[int], bytes]


def artifact_columns(
    artifact: Artifact, index: SampleIndex, open_reader: Callable[[], AbstractContextManager[Read]]
) -> ImageColumns:
    """The images of a shards artifact, by column.

    Args:
        open_reader: opens a function that returns an encoded image by its id; not called if any shard is remote.
    """
    locations = ShardLocations(artifact, index.shard_names)
    sizes = np.array([locations.size(number) for number in range(len(index.shard_names))], np.int64)
    if any(locations.remote):
        return index_columns(index, sizes, {})
    with open_reader() as read:
        return index_columns(index, sizes, _formats(len(index), read))


def _formats(images: int, read: Read) -> dict[str, int]:
    """Number of images by format in a sample of at most 1,000; the index has no formats."""
    formats: Counter[str] = Counter()
    for id in np.unique(np.linspace(0, images - 1, min(images, _FORMAT_SAMPLE)).astype(int)).tolist():
        with suppress(TutelageError):
            formats[format_of(read(id)[:HEAD_BYTES]) or "other"] += 1
    return dict(formats.most_common())
