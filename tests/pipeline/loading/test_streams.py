"""Streams: a shuffle by blocks that reads few shards at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.loading.batch import rank_slice
from pipeline.loading.policies.row_runs import RowRuns
from pipeline.loading.policies.streams import Streams

MASKS = st.lists(st.booleans(), min_size=0, max_size=80).map(np.array)


def all_rows(count: int) -> RowRuns:
    return RowRuns(np.array([0]), np.array([count]))


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_runs_are_the_rows(mask: np.ndarray) -> None:
    rows = np.flatnonzero(mask).astype(np.int64)
    for runs in (RowRuns.of_rows(rows), RowRuns.where(len(mask), (mask, True, True))):
        assert len(runs) == len(rows)
        np.testing.assert_array_equal(runs.ids(np.arange(len(rows))), rows)
        first, length = runs.blocks(3)
        assert length.sum() == len(rows)
        assert not len(length) or 1 <= length.min() <= length.max() <= 3
        np.testing.assert_array_equal(
            np.concatenate([np.arange(a, a + n) for a, n in zip(first, length, strict=True)] or [[]]), rows
        )


def test_a_run_over_the_border_of_two_scanned_parts_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.loading.policies.row_runs._SCAN_ROWS", 7)
    split, label = np.zeros(50, np.int8), np.zeros(50, np.int32)
    label[33] = -1
    split[45:] = 1
    runs = RowRuns.where(50, (split, 0, True), (label, -1, False))
    assert runs.starts.tolist() == [0, 34]
    assert runs.stops.tolist() == [33, 45]


@given(
    MASKS.filter(lambda mask: mask.any()),
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(1, 12),
)
@settings(max_examples=150, deadline=None)
def test_every_sample_once_an_epoch(mask: np.ndarray, batch: int, streams: int, block: int, window: int) -> None:
    rows = np.flatnonzero(mask).astype(np.int64)
    policy = Streams(RowRuns.of_rows(rows), batch, 3, streams=streams, block=block, window=window)
    # As many epochs as it takes for the batches to end where an epoch ends.
    seen = np.concatenate([policy.batch(step) for step in range(len(rows))])
    values, counts = np.unique(seen, return_counts=True)
    np.testing.assert_array_equal(values, rows)
    assert set(counts.tolist()) == {batch}
    # Within the first epoch nothing comes twice.
    whole = np.concatenate([policy.batch(step) for step in range(len(rows) // batch)] or [np.empty(0, np.int64)])
    assert len(np.unique(whole)) == len(whole)


@given(st.integers(0, 400), st.integers(1, 16))
@settings(max_examples=60, deadline=None)
def test_a_batch_depends_on_its_step_only_and_on_no_number_of_ranks(step: int, world: int) -> None:
    make = lambda: Streams(all_rows(997), 48, 5, streams=16, block=10, window=40)  # noqa: E731
    walked = make()
    for before in range(max(0, step - 3), step):
        walked.batch(before)
    batch = make().batch(step)
    np.testing.assert_array_equal(walked.batch(step), batch)
    shares = [rank_slice(batch, rank, world) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate(shares), batch)


def test_a_rank_reads_from_the_blocks_of_its_own_streams() -> None:
    """64 shards of 100; 8 streams with windows of two blocks; 4 ranks: a rank has 2 streams, so 6 shards at most."""
    policy = Streams(all_rows(6400), 32, 1, streams=8, block=100, window=200)
    for first_step in range(0, 200, 20):
        for rank in range(4):
            ids = np.concatenate(
                [rank_slice(policy.batch(step), rank, 4) for step in range(first_step, first_step + 5)]
            )
            assert len(np.unique(ids // 100)) <= 2 * (2 + 1) * 2  # a window, the next one begun, blocks cut by streams
    everywhere = np.concatenate([policy.batch(step) for step in range(5)])
    assert len(np.unique(everywhere // 100)) >= 12


def test_epochs_and_seeds_differ_and_neighbours_are_parted() -> None:
    epoch = lambda seed, number: np.concatenate(  # noqa: E731
        [Streams(all_rows(4096), 64, seed, streams=16, block=32, window=128).batch(number * 64 + s) for s in range(64)]
    )
    first, second, other = epoch(0, 0), epoch(0, 1), epoch(1, 0)
    assert sorted(first) == sorted(second) == list(range(4096))
    assert (first == second).mean() < 0.01
    assert (first == other).mean() < 0.01
    assert (np.diff(first) == 1).mean() < 0.05


def test_planning_a_hundred_million_rows_keeps_no_array_of_them() -> None:
    tracemalloc.start()
    policy = Streams(all_rows(100_000_000), 4096, 0)
    batch = policy.batch(10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(np.unique(batch)) == 4096
    assert peak < 30e6


def test_nothing_to_sample_from_is_refused() -> None:
    with pytest.raises(InputError, match="no samples"):
        Streams(RowRuns.of_rows(np.empty(0, np.int64)), 8, 0)
    with pytest.raises(InputError, match="global_batch"):
        Streams(all_rows(3), 0, 0)
