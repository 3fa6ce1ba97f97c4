"""The table of keys: what it finds is the key itself, whatever the hashes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.sharding.joining import key_table
from pipeline.sharding.joining.key_table import KeyTable, key_hashes


def texts(values: list[str]) -> pa.LargeStringArray:
    return pa.array(values, pa.large_string())


@given(st.lists(st.text(max_size=30), unique=True, max_size=60), st.lists(st.text(max_size=30), max_size=20))
@settings(deadline=None)
def test_every_key_is_found_at_its_row_and_no_other_is(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], others: list[str]
) -> None:
    table = KeyTable(texts(keys), tmp_path_factory.mktemp("table"))
    expected = [keys.index(key) if key in keys else -1 for key in others + keys[::-1]]
    assert table.rows(texts(others + keys[::-1])).tolist() == expected


@given(st.lists(st.text(max_size=40), max_size=30), st.integers(0, 30), st.integers(0, 9))
@settings(deadline=None)
def test_a_hash_depends_on_the_key_and_the_seed_alone(keys: list[str], start: int, seed: int) -> None:
    whole = key_hashes(texts(keys), seed)
    np.testing.assert_array_equal(key_hashes(texts(keys).slice(start), seed), whole[start:])
    assert len(set(whole.tolist())) == len(set(keys))


def test_hashes_spread_over_the_buckets() -> None:
    top = key_hashes(texts([f"{number:09d}" for number in range(65536)])) >> np.uint64(60)
    counts = np.bincount(top.astype(np.int64), minlength=16)
    assert abs(counts / 4096 - 1).max() < 0.08  # five standard deviations of a fair draw


def test_many_buckets_make_one_sorted_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_table, "_BUCKET_KEYS", 100)
    monkeypatch.setattr(key_table, "_CHUNK_KEYS", 64)
    keys = [f"key {number}" for number in range(5000)]
    table = KeyTable(texts(keys), tmp_path)
    np.testing.assert_array_equal(table.rows(texts(keys)), np.arange(5000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.hashes", "keys.rows"]


def test_keys_whose_hashes_collide_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = key_hashes
    # Under seed 0 all keys have one of two hashes; other seeds are sound.
    monkeypatch.setattr(
        key_table,
        "key_hashes",
        lambda keys, seed=0: honest(keys, seed) % np.uint64(2) if seed == 0 else honest(keys, seed),
    )
    keys = [f"k{number}" for number in range(50)]
    assert KeyTable(texts(keys), tmp_path).rows(texts(["k7", "other", "k49"])).tolist() == [7, -1, 49]


def test_an_unknown_key_with_a_known_hash_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_table, "key_hashes", lambda keys, seed=0: np.full(len(keys), 5, np.uint64))
    assert KeyTable(texts(["one"]), tmp_path).rows(texts(["two", "one"])).tolist() == [-1, 0]


def test_a_key_of_two_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows 1 and 3 of the index have the same key, 'b'"):
        KeyTable(texts(["a", "b", "c", "b"]), tmp_path)
