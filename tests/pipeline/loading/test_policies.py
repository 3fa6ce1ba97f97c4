"""What every policy promises, and what each of them does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.loading.batch import rank_slice
from pipeline.loading.policies.base import SamplingPolicy, steps_per_epoch
from pipeline.loading.policies.class_balanced import ClassBalanced
from pipeline.loading.policies.shuffled import Shuffled

SIZES = st.tuples(st.integers(1, 200), st.integers(1, 64), st.integers(0, 2**31))


def rows_of(samples: int) -> np.ndarray:
    return np.arange(samples, dtype=np.int64) * 3 + 5


def policies(samples: int, global_batch: int, seed: int) -> list[SamplingPolicy]:
    rows = rows_of(samples)
    labels = np.minimum(rows % 11, 4)
    return [
        Shuffled(rows, global_batch, seed),
        ClassBalanced(rows, labels, global_batch, seed),
        ClassBalanced(rows, labels, global_batch, seed, balance="square-root"),
    ]


def stream(policy: SamplingPolicy, samples: int) -> np.ndarray:
    steps = -(-samples // policy.global_batch)
    return np.concatenate([policy.batch(step) for step in range(steps)])[:samples]


@given(SIZES)
@settings(max_examples=40, deadline=None)
def test_shuffled_shows_every_sample_once_an_epoch(sizes: tuple[int, int, int]) -> None:
    samples, global_batch, seed = sizes
    epochs = stream(Shuffled(rows_of(samples), global_batch, seed), 3 * samples).reshape(3, samples)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), rows_of(samples))


def test_shuffled_epochs_and_seeds_differ() -> None:
    rows = rows_of(100)
    first, second = stream(Shuffled(rows, 10, 1), 200).reshape(2, 100)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, stream(Shuffled(rows, 10, 2), 100))


def test_shuffled_places_every_sample_anywhere() -> None:
    """Each of 6 samples comes first in about a sixth of 3,000 epochs: chi-square with 5 degrees of freedom."""
    policy = Shuffled(np.arange(6), 6, seed=0)
    counts = np.bincount([policy.batch(step)[0] for step in range(3000)], minlength=6)
    assert ((counts - 500) ** 2 / 500).sum() < 20.5  # p = 0.001


@given(SIZES, st.lists(st.integers(0, 40), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_batch_depends_on_nothing_but_its_step(sizes: tuple[int, int, int], steps: list[int]) -> None:
    for policy, fresh in zip(policies(*sizes), policies(*sizes), strict=True):
        in_order = {step: fresh.batch(step) for step in sorted(set(steps))}
        for step in steps:
            batch = policy.batch(step)
            assert batch.dtype == np.int64
            assert len(batch) == policy.global_batch
            np.testing.assert_array_equal(batch, in_order[step])


@given(st.integers(0, 300), st.integers(1, 8))
def test_slices_of_all_ranks_are_the_global_batch(size: int, world: int) -> None:
    ids = np.arange(size)
    slices = [rank_slice(ids, rank, world) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate(slices), ids)
    lengths = [len(part) for part in slices]
    assert max(lengths) - min(lengths) <= 1


def test_epoch_is_that_of_the_batchs_first_sample() -> None:
    policy = Shuffled(rows_of(10), 4, seed=0)
    assert [policy.epoch(step) for step in range(6)] == [0, 0, 0, 1, 1, 2]
    assert steps_per_epoch(10, 4) == 3
    assert steps_per_epoch(3, 4) == 1


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_balanced_labels_are_equally_frequent(counts: list[int], global_batch: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    policy = ClassBalanced(np.arange(len(labels)), labels, global_batch, seed)
    ids = stream(policy, 50 * len(counts))
    np.testing.assert_array_equal(np.bincount(labels[ids]), 50)
    for label, count in enumerate(counts):
        # Without replacement: any two samples of a label have come equally often, but for one.
        seen = np.bincount(ids[labels[ids] == label], minlength=len(labels))[labels == label]
        assert seen.max() - seen.min() <= 1
        assert seen.sum() == 50
        assert len(seen) == count


def test_square_root_balance_follows_the_root_of_the_count() -> None:
    counts = np.array([4, 100, 900, 2500])
    labels = np.repeat(np.arange(4), counts)
    policy = ClassBalanced(np.arange(len(labels)), labels, 128, seed=3, balance="square-root")
    shares = np.bincount(labels[stream(policy, 128 * 400)]) / (128 * 400)
    np.testing.assert_allclose(shares, np.sqrt(counts) / np.sqrt(counts).sum(), atol=0.005)


def test_balanced_epoch_ends_when_the_rarest_label_starts_anew() -> None:
    """Label 1 has 2 samples, a cycle has 2 places: after 4 samples each of its samples came once."""
    policy = ClassBalanced(np.arange(12), np.array([0] * 10 + [1] * 2), 4, seed=0)
    assert [policy.epoch(step) for step in range(3)] == [0, 1, 2]


def test_nothing_to_sample_from_is_refused() -> None:
    empty = np.empty(0, np.int64)
    with pytest.raises(InputError, match="no samples"):
        Shuffled(empty, 4, seed=0)
    with pytest.raises(InputError, match="at least 1"):
        Shuffled(rows_of(4), 0, seed=0)
    with pytest.raises(InputError, match="2 of 4 samples have no label"):
        ClassBalanced(rows_of(4), np.array([0, -1, 1, -1]), 4, seed=0)
