"""The rows of the shards on which a classifier is trained and evaluated."""

from __future__ import annotations

from functools import partial

from pipeline.loading.policies.row_runs import RowRuns
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns, Keep

UNLABELLED = -1  # the label of a sample without one


def labelled_rows(index: SampleIndex, split: str) -> RowRuns:
    """The ids of a split that have a label."""
    return RowRuns.where(len(index), (index.splits, SPLITS.index(split), True), (index.labels, UNLABELLED, False))


def training_rows(index: SampleIndex, columns: JoinedColumns | None, keep: Keep) -> RowRuns:
    """The ids of the train split that have a label and are in the ranges of `keep`."""
    rows = labelled_rows(index, "train")
    return rows if columns is None or not keep else rows.filter(partial(columns.in_ranges, keep))
