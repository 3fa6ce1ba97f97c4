"""Every pair of near hashes is found, and nothing else, without comparing all with all."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.sharding.format.perceptual import difference_hash, near_pairs, pairs_between

HASHES = st.lists(st.tuples(st.integers(0, 7), st.lists(st.integers(0, 63), max_size=9)), min_size=0, max_size=60).map(
    # A few centres with bits flipped, so that there are near pairs at all.
    lambda drawn: sorted(
        {centre * 0x0123456789ABCDEF % 2**64 ^ sum(1 << bit for bit in set(bits)) for centre, bits in drawn}
    )
)


@given(HASHES, st.integers(0, 8))
@settings(max_examples=80, deadline=None)
def test_near_pairs_are_those_of_a_comparison_of_all_with_all(hashes: list[int], radius: int) -> None:
    left, right = near_pairs(np.array(hashes, dtype=np.uint64), radius)
    expected = [
        (one, other)
        for one in range(len(hashes))
        for other in range(one + 1, len(hashes))
        if (hashes[one] ^ hashes[other]).bit_count() <= radius
    ]
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == expected


def test_the_cost_does_not_grow_with_the_square() -> None:
    """All pairs of 200,000 would be 2e10 comparisons: minutes; planted pairs are found in seconds."""
    rng = np.random.default_rng(0)
    hashes = np.unique(rng.integers(0, 2**64, 200_000, dtype=np.uint64))
    hashes[1::1000] = hashes[::1000] ^ np.uint64(1 << 63 | 1 << 31 | 1)
    started = time.process_time()
    left, right = near_pairs(hashes, 3)
    assert time.process_time() - started < 20
    assert set(zip(range(0, 199_000, 1000), range(1, 199_001, 1000), strict=True)) <= set(
        zip(left.tolist(), right.tolist(), strict=True)
    )


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_hash_says_where_it_gets_brighter_to_the_right(mode: str) -> None:
    ramp = np.tile(np.arange(0, 90, 10, dtype=np.uint8), (8, 1))
    assert difference_hash(Image.fromarray(ramp).convert(mode)) == 2**64 - 1
    assert difference_hash(Image.fromarray(ramp[:, ::-1].copy()).convert(mode)) == 0
    half = ramp.copy()
    half[4:] = 7
    assert difference_hash(Image.fromarray(half)) == 0xFFFFFFFF00000000


@given(HASHES, HASHES, st.integers(0, 10))
@settings(max_examples=80, deadline=None)
def test_pairs_between_two_sets_are_found_once_each(left: list[int], right: list[int], radius: int) -> None:
    found = [
        (int(one), int(other), int(distance))
        for ones, others, distances in pairs_between(
            np.array(left, dtype=np.uint64), np.array(right, dtype=np.uint64), radius
        )
        for one, other, distance in zip(ones, others, distances, strict=True)
    ]
    expected = [
        (one, other, (left[one] ^ right[other]).bit_count()) for one in range(len(left)) for other in range(len(right))
    ]
    assert sorted(found) == [pair for pair in expected if pair[2] <= radius]


def test_equal_hashes_are_pairs_too() -> None:
    left, right = near_pairs(np.array([5, 7, 5, 5], dtype=np.uint64), 0)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 2), (0, 3), (2, 3)]


def test_a_white_margin_costs_little() -> None:
    """Half of the bits of pictures on white are 0; blocks that were runs of bits would agree in all pairs: 2e9."""
    rng = np.random.default_rng(0)
    hashes = np.unique(rng.integers(0, 2**64, 60_000, dtype=np.uint64) & np.uint64(0x000000FFFFFFFF00))
    started = time.process_time()
    near_pairs(hashes, 3)
    assert time.process_time() - started < 5
