"""The names of samples in their source, e.g. the paths of image files, by which a person can find them.

They are in items.parquet of a shards artifact; the shards themselves name a sample by its key.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.artifacts import Artifact
from pipeline.errors import DamagedError
from pipeline.sharding.format.index import SampleIndex

LISTING_FILE = "items.parquet"
_READ_ROWS = 1 << 16


def item_names(shards: Artifact, ids: Iterable[int]) -> dict[int, str]:
    """The names of samples in their source, by id; in a mixture DATA_SET/NAME.

    Args:
        shards: a shards artifact.
        ids: ids of the samples.
    Returns:
        id -> name. Samples of tars that are indexed in place, and of a data set that is no longer in the store, have no
        name, and are absent.
    """
    wanted = np.unique(np.fromiter(ids, dtype=np.int64))
    if not wanted.size:
        return {}
    if LISTING_FILE not in shards.files:
        return _names_in_mixture(shards, wanted)
    names: dict[int, str] = {}
    with pq.ParquetFile(shards.path(LISTING_FILE)) as file:
        for batch in file.iter_batches(_READ_ROWS, columns=["name", "row"]):
            rows = batch.column("row").to_numpy()
            positions = np.flatnonzero(np.isin(rows, wanted))
            if positions.size:
                names.update(
                    zip(rows[positions].tolist(), batch.column("name").take(positions).to_pylist(), strict=True)
                )
    return names


def _names_in_mixture(shards: Artifact, wanted: NDArray[np.int64]) -> dict[int, str]:
    """The names of a mixture's samples; {} for other shards.

    A mixture lacks some of the rows of its data sets, so they are found by their keys: DATA_SET/KEY.
    """
    index = SampleIndex.open(shards)
    names: dict[int, str] = {}
    for data_set in index.data_sets:
        prefix = f"{data_set.name}/"
        ids = {
            index.key(id).removeprefix(prefix): id
            for id in wanted[(wanted >= data_set.start) & (wanted < data_set.stop)].tolist()
        }
        if not ids:
            continue
        try:
            origin = shards.in_same_store(shards.manifest["inputs"][data_set.name])
        except DamagedError:
            continue
        keys = SampleIndex.open(origin).keys
        rows = np.flatnonzero(pc.is_in(keys, pa.array(ids, keys.type)).to_numpy(zero_copy_only=False))
        id_of_row = {row: ids[keys[row].as_py()] for row in rows.tolist()}
        names |= {id_of_row[row]: f"{prefix}{name}" for row, name in item_names(origin, id_of_row).items()}
    return names
