"""The search counts every match and lists the worst; what is repeated a thousand times does not cost a million."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.leaks.kinds import Kind
from pipeline.leaks.search import DataSet, Match, find_leaks
from pipeline.leaks.signature import SIGNATURE, State, difference
from pipeline.leaks.signature_cache import Signatures

# (content, pixels, flipped bits of the hash, seed of the grey cells, flat): few values, so that there are matches.
IMAGES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=25
)


def data_set(images: list[tuple[int, int, int, int, bool]]) -> DataSet:
    signatures = np.zeros(len(images), dtype=SIGNATURE)
    content = np.zeros((len(images), 2), dtype=np.uint64)
    for row, (form, pixels, bits, seen, flat) in enumerate(images):
        # Equal pixels look equal; equal bytes have equal pixels.
        bits, seen, flat = (bits, seen, flat) if pixels > 2 else (pixels, pixels, False)
        signatures[row]["pixels"] = (7, hash((pixels, bits, seen, flat)) % 2**63)
        signatures[row]["hash"] = (1 << bits) - 1
        signatures[row]["grey"] = np.random.default_rng(seen // 2).integers(0, 256, 256)
        signatures[row]["state"] = State.FLAT if flat else State.COMPARABLE
        content[row] = signatures[row]["pixels"] + np.uint64(form)
    index: Any = SimpleNamespace()
    return DataSet(index, Signatures([signatures] if images else [], []), content)


@given(IMAGES, IMAGES, st.integers(0, 3), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_matches_are_those_of_a_comparison_of_all_with_all(
    train: list[Any], asked: list[Any], radius: int, listed: int
) -> None:
    one, other = data_set(train), data_set(asked)
    rows = np.arange(len(train)), np.arange(len(asked))
    found = find_leaks(one, rows[0], other, rows[1], radius=radius, tolerance=0.01, listed=listed)
    for row in range(len(asked)):
        expected = [match for train_row in range(len(train)) if (match := compared(one, train_row, other, row, radius))]
        given = found.matches.get(row, [])
        assert found.counts.get(row, 0) == len(expected)
        assert len(given) == min(listed, len(expected))
        assert [match.rank for match in given] == sorted(match.rank for match in expected)[:listed]
        assert set(given) <= set(expected)


def compared(one: DataSet, train_row: int, other: DataSet, row: int, radius: int) -> Match | None:
    """The match of two images, compared directly."""
    left, right = one.signatures.at(np.array([train_row])), other.signatures.at(np.array([row]))
    if (left["pixels"] == right["pixels"]).all():
        same = (one.content[train_row] == other.content[row]).all()
        return Match(Kind.EXACT if same else Kind.PIXELS, row, train_row)
    distance = int(np.bitwise_count(left["hash"] ^ right["hash"])[0])
    if State.FLAT in (left["state"], right["state"]) or distance > radius:
        return None
    pair_difference = float(difference(left, right, 0.01)[0])
    return Match(Kind.NEAR, row, train_row, distance, pair_difference) if pair_difference <= 1 else None


def test_a_placeholder_repeated_costs_no_more_than_one() -> None:
    """30,000 x 30,000 equal images are 9e8 pairs, which nobody wants to go through, or to hold."""
    repeated = [(0, 0, 0, 0, False)] * 30_000
    one = data_set(repeated[:1])
    many = Signatures([np.repeat(one.signatures.at(np.array([0])), 30_000)[:4096]] * 8, [])
    crowd = DataSet(one.index, many, np.repeat(one.content, len(many.pixels), axis=0))
    rows = np.arange(30_000)
    found = find_leaks(crowd, rows, crowd, rows[:1000], radius=3, tolerance=0.01, listed=2)
    assert set(found.counts.values()) == {30_000}
    assert {len(matches) for matches in found.matches.values()} == {2}
