"""Indexes existing tars in place: no image is copied; the artifact contains index and card and refers to the tars.

`SampleIndex.shard_names` are then the tars' addresses (a path, or s3://bucket/key). tars.json contains the size and
modification time (in S3: the ETag) of each tar, so that a reader detects a tar that changed since. Within a split the
samples are in the order of the tars; one tar may contain samples of several splits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.tars_file import write_tars
from pipeline.sharding.sources.base import Collection
from pipeline.sharding.writing.chunks import PlanColumns, read_table
from pipeline.sharding.writing.index_piece import IndexNumbers, content_hashes, final_keys, index_piece
from pipeline.sharding.writing.numbering import Numbering, build_numbering
from pipeline.sharding.writing.plan import Plan
from pipeline.sharding.writing.scratch import Scratch


def index_in_place(
    output: Path,
    scratch: Scratch,
    columns: PlanColumns,
    plan: Plan,
    collection: Collection,
    labels: NDArray[np.int32],
    label_names: Sequence[str],
) -> SampleIndex:
    """Writes index.arrow, index.parquet and tars.json below `output`.

    Args:
        collection: the columns `tar` and `start` of the chunks refer to its `tars`.
        labels: number of each label in `label_names`, see `label_numbers`.
    """
    order = np.lexsort((plan.rows, plan.splits))
    rows, splits = plan.rows[order], plan.splits[order]
    numbering = build_numbering(scratch, columns, rows, collection.root, labels)
    index = SampleIndex.assemble(
        _pieces(scratch, columns, plan, numbering, rows, splits),
        scratch.columns("index"),
        shard_names=[tar.url for tar in collection.tars],
        label_names=label_names,
        taxonomy=numbering.taxonomy,
    )
    index.write(output)
    write_tars(output, collection.tars)
    return index


def _pieces(
    scratch: Scratch,
    columns: PlanColumns,
    plan: Plan,
    numbering: Numbering,
    rows: NDArray[np.int64],
    splits: NDArray[np.int8],
) -> Iterator[pa.Table]:
    """Yields the index in pieces, each with samples of one chunk and split.

    Args:
        rows, splits: [samples] rows of the columns and their splits, in the order of the ids.
    """
    chunks, rows_in_chunk = columns.locate(rows)
    changes = np.flatnonzero((np.diff(chunks) != 0) | (np.diff(splits) != 0)) + 1
    for start, end in pairwise([0, *changes.tolist(), len(rows)]):
        if start == end:
            continue
        ids = slice(start, end)
        table = read_table(scratch, int(chunks[start])).take(pa.array(rows_in_chunk[ids])).combine_chunks()
        yield index_piece(
            table,
            IndexNumbers.of_rows(columns, numbering, ids, rows[ids]),
            numbering.family_names,
            keys=final_keys(table, plan.suffixes_of(rows[ids])),
            contents=content_hashes(table),
            shards=table.column("tar").chunk(0),
            offsets=table.column("start").chunk(0),
            splits=splits[ids],
        )
