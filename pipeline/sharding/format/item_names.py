"""The names by which a source knows its items, e.g. the paths of image files: what a person searches for.

A key names a sample within its shards; `items.parquet` of a shards artifact has the name of each item.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow.parquet as pq

from pipeline.artifacts import Artifact

FILE = "items.parquet"
_READ_ROWS = 1 << 16


def item_names(shards: Artifact, ids: Iterable[int]) -> dict[int, str]:
    """The names of samples in their source, by id.

    Args:
        shards: a shards artifact.
        ids: the samples.
    Returns:
        Without the samples that have no name there: those of tars that are indexed in place, and of mixtures.
    """
    wanted = np.unique(np.fromiter(ids, dtype=np.int64))
    if FILE not in shards.files or not wanted.size:
        return {}
    names: dict[int, str] = {}
    with pq.ParquetFile(shards.path(FILE)) as file:
        for batch in file.iter_batches(_READ_ROWS, columns=["name", "row"]):
            rows = batch.column("row").to_numpy()
            found = np.flatnonzero(np.isin(rows, wanted))
            if found.size:
                names.update(zip(rows[found].tolist(), batch.column("name").take(found).to_pylist(), strict=True))
    return names
