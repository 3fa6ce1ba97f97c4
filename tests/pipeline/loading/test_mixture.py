"""Mixtures: exact quotas, a permutation in each data set's epoch, and nothing that depends on workers or the past."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import canonical_json, parse_config
from pipeline.errors import InputError
from pipeline.loading.batch import rank_slice
from pipeline.loading.policies.mixture import Mixture, MixtureConfig, samples_per_epoch
from pipeline.loading.policies.quotas import Quotas
from pipeline.loading.policies.row_runs import RowRuns
from pipeline.sharding.format.data_sets import DataSet
from pipeline.sharding.format.index import SampleIndex

WEIGHTS = st.lists(
    st.one_of(st.integers(1, 9).map(float), st.sampled_from([0.5, 3.14159, 77.7])), min_size=1, max_size=6
)
ORDERS: list[dict[str, Any]] = [{"kind": "shuffled"}, {"kind": "streams", "streams": 4, "block": 5, "window_blocks": 2}]


class Index:
    """What the policy reads of an index: which rows are whose. Sizes of data sets, one after another."""

    def __init__(self, *sizes: int) -> None:
        edges = np.cumsum([0, *sizes]).tolist()
        self.data_sets = tuple(DataSet(f"set{n}", edges[n], edges[n + 1]) for n in range(len(sizes)))
        self.rows = RowRuns.of_rows(np.arange(edges[-1]))


def mixture(index: Any, global_batch: int = 10, **config: Any) -> Mixture:
    made = parse_config(MixtureConfig, config, "policy")
    return made.build(index, index.rows, global_batch, 3)


@given(WEIGHTS, st.integers(0, 30_000), st.integers(0, 30_000))
@settings(max_examples=25, deadline=None)
def test_turns_are_the_shares_to_within_one_from_the_start_and_two_between(
    weights: list[float], first: int, last: int
) -> None:
    quotas = Quotas(weights)
    bound = 1 - 1 / (2 * len(weights) - 2) if len(weights) > 1 else 0
    for turn in (first, last):
        before = quotas.before(turn)
        assert before.sum() == turn
        assert np.abs(before - turn * quotas.shares).max() <= bound + 1e-6
    window = quotas.before(max(first, last)) - quotas.before(min(first, last))
    assert (window >= 0).all()
    assert np.abs(window - abs(first - last) * quotas.shares).max() <= 2 * bound + 1e-6
    # A cycle has 10,000 turns at most, and everyone has one at least.
    np.testing.assert_allclose(quotas.shares, np.array(weights) / sum(weights), atol=6e-4)


def test_small_ratios_are_met_exactly() -> None:
    assert Quotas([2, 1]).turns.tolist() == [2, 1]
    assert Quotas([0.7, 0.2, 0.1]).turns.tolist() == [7, 2, 1]
    assert Quotas([30, 10, 20]).turns.tolist() == [3, 1, 2]
    assert Quotas([1e9, 1]).turns.tolist() == [9999, 1]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.integers(1, 40),
    st.sampled_from(ORDERS),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_each_data_set_is_shown_whole_in_each_of_its_epochs(
    sizes: list[int], batch: int, order: dict[str, Any], data: st.DataObject
) -> None:
    index = Index(*sizes)
    weights = {one.name: data.draw(st.integers(1, 5)) for one in index.data_sets}
    policy = mixture(index, batch, weights=weights, order=order)
    # Enough for two epochs of every data set.
    steps = max(-(-2 * len(one) * sum(weights.values()) // (weights[one.name] * batch)) for one in index.data_sets) + 1
    stream = [policy.batch(step) for step in range(steps)]
    everything = np.concatenate(stream)
    total = sum(weights.values())
    for one in index.data_sets:
        mine = everything[(everything >= one.start) & (everything < one.stop)]
        assert abs(len(mine) - steps * batch * weights[one.name] / total) < 1
        counts = np.bincount(mine - one.start, minlength=len(one))
        laps = len(mine) / len(one)
        assert laps >= 2
        # Each sample comes once an epoch: as often as any other, but for one. A batch may hold the border of two.
        assert counts.max() - counts.min() <= 1


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.sampled_from(ORDERS), st.integers(1, 16))
@settings(max_examples=40, deadline=None)
def test_a_batch_depends_on_its_step_alone_and_workers_share_it_out(
    steps: list[int], order: dict[str, Any], world: int
) -> None:
    index = Index(37, 11, 90)
    weights = {"set0": 3, "set1": 1, "set2": 4}
    policy = mixture(index, 23, weights=weights, order=order)
    for step in steps:
        batch = policy.batch(step)
        assert batch.dtype == np.int64
        assert len(batch) == 23
        np.testing.assert_array_equal(batch, mixture(index, 23, weights=weights, order=order).batch(step))
        parts = [rank_slice(batch, rank, world) for rank in range(world)]
        np.testing.assert_array_equal(np.concatenate(parts), batch)


def test_every_rank_has_its_share_of_every_data_set() -> None:
    policy = mixture(Index(5000, 5000), 256, weights={"set0": 3, "set1": 1})
    for step in range(20):
        for rank in range(4):
            part = rank_slice(policy.batch(step), rank, 4)
            assert abs(np.count_nonzero(part < 5000) - 48) <= 8


def test_neighbours_are_of_one_data_set_as_often_as_of_two() -> None:
    """Mixup blends rows 2i and 2i + 1: in even turns they would never be of one data set."""
    policy = mixture(Index(5000, 5000), 256, weights={"set0": 1, "set1": 1})
    batches = np.stack([policy.batch(step) for step in range(40)]) < 5000
    same = (batches[:, ::2] == batches[:, 1::2]).mean()
    assert 0.4 < same < 0.6


def test_data_sets_of_one_size_are_shuffled_apart() -> None:
    batch = mixture(Index(50, 50), 100, weights={"set0": 1, "set1": 1}).batch(0)
    first, second = batch[batch < 50], batch[batch >= 50] - 50
    assert not np.array_equal(first, second)


def test_weights_by_size_follow_the_temperature() -> None:
    sizes = {"large": 10_000, "small": 100}
    assert MixtureConfig().weights_of(sizes) == sizes
    assert MixtureConfig(temperature=2).weights_of(sizes) == {"large": 100.0, "small": 10.0}
    assert mixture(Index(9000, 1000), 100)._quotas.turns.tolist() == [9, 1]


def test_an_epoch_of_training_shows_the_largest_data_set_once() -> None:
    policy = mixture(Index(900, 30), weights={"set0": 3, "set1": 1})
    assert samples_per_epoch(policy, 930) == 1200
    assert samples_per_epoch(mixture(Index(900, 300)), 1200) == 1200
    assert samples_per_epoch(object(), 930) == 930


def test_a_small_data_set_is_augmented_anew_each_time_it_comes() -> None:
    policy = mixture(Index(900, 30), 40, weights={"set0": 3, "set1": 1})
    assert [policy.epoch(step) for step in (0, 2, 3, 6, 9)] == [0, 0, 1, 2, 3]


def test_weight_0_leaves_a_data_set_out() -> None:
    policy = mixture(Index(20, 20, 20), 30, weights={"set0": 1, "set1": 0, "set2": 1})
    ids = np.concatenate([policy.batch(step) for step in range(5)])
    assert set(ids.tolist()) == {*range(20), *range(40, 60)}


@pytest.mark.parametrize(
    ("sizes", "config", "words"),
    [
        ((5, 5), {"weights": {"set0": 1, "sett1": 1}}, "'sett1'; did you mean set1"),
        ((5, 5), {"weights": {"set0": 1}}, "no weight for the data set 'set1'; give one, or 0"),
        ((5, 0), {"weights": {"set0": 1, "set1": 1}}, "'set1' has no samples to train on"),
        ((5, 5), {"weights": {"set0": 0, "set1": 0}}, "every weight is 0"),
        ((5, 5), {"weights": {"set0": -1, "set1": 2}}, "greater than or equal to 0"),
        ((5, 5), {"temperature": 0.5}, "greater than or equal to 1"),
    ],
)
def test_weights_that_mean_nothing_are_refused(sizes: tuple[int, ...], config: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        mixture(Index(*sizes), **config)


def test_shards_of_one_data_set_are_no_mixture(shards: Any) -> None:
    assert isinstance(shards.index, SampleIndex)
    with pytest.raises(InputError, match="the shards are of one data set"):
        MixtureConfig().build(shards.index, RowRuns.of_rows(shards.index.rows("train")), 8, 0)
    assert "mixture" in canonical_json(MixtureConfig())
