"""A listing comes back as it was written, from files, and items are found in it by name."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts import Artifact
from pipeline.errors import DamagedError
from pipeline.sharding.deltas.diff_with_base import ItemHashes, isin_sorted, match_by_name
from pipeline.sharding.deltas.items_table import SCHEMA, Listing, write_listing
from pipeline.sharding.format.item_names import LISTING_FILE


def table_of(rows: int) -> pa.Table:
    numbers = np.arange(rows)
    columns = {
        field.name: pa.array(numbers % 100, field.type)
        for field in SCHEMA
        if field.name not in ("name", "name_hash", "family", "row")
    }
    columns["name"] = pa.array([f"folder/picture-{number:06d}.jpg" for number in numbers], pa.large_string())
    columns["name_hash"] = pa.array(numbers * 7919 % 1_000_003, pa.uint64())
    columns["row"] = pa.array(np.where(numbers % 5 == 0, -1, numbers))
    columns["family"] = pa.array([f"source {number % 3}" for number in numbers], pa.string())
    return pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def artifact_at(folder: Path) -> Artifact:
    return cast(Artifact, SimpleNamespace(name="shard-dataset/0a", path=lambda name: folder / name))


def test_a_listing_comes_back_from_files_and_not_from_memory(tmp_path: Path) -> None:
    rows = 150_000  # More than are read at a time.
    write_listing(tmp_path, (table_of(rows).slice(start, 40_000) for start in range(0, rows, 40_000)))
    gc.collect()
    before = pa.total_allocated_bytes()
    listing = Listing.open(artifact_at(tmp_path), tmp_path / "columns")
    assert pa.total_allocated_bytes() - before < rows
    assert len(listing) == rows
    assert listing.family_names == ("source 0", "source 1", "source 2")
    whole = table_of(rows)
    assert listing.rows(np.arange(rows)).equals(whole)
    some = np.array([149_999, 3, 3, 70_000])
    changed = listing.rows(some, row=np.array([1, 2, 3, -1]), stamp_hash=np.full(4, 9, dtype=np.uint64))
    assert changed.column("name").to_pylist() == whole.column("name").take(some).to_pylist()
    assert changed.column("row").to_pylist() == [1, 2, 3, -1]
    assert changed.column("stamp_hash").to_pylist() == [9] * 4


@pytest.mark.parametrize("content", [b"", b"no Parquet at all", b"PAR1" * 10])
def test_what_is_no_listing_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LISTING_FILE).write_bytes(content)
    with pytest.raises(
        DamagedError, match=r"^shard-dataset/0a/items.parquet: not a listing of items \(.*\); re-run its"
    ):
        Listing.open(artifact_at(tmp_path), tmp_path / "columns")


SMALL = st.lists(st.integers(0, 6), max_size=12)


@given(SMALL, SMALL)
def test_the_nth_item_of_a_name_goes_with_the_nth(source: list[int], listed: list[int]) -> None:
    items = np.array(source, dtype=np.uint64)
    listing: Any = SimpleNamespace(numbers={"name_hash": np.array(listed, dtype=np.uint64)})
    seen: Counter[int] = Counter()
    expected = []
    for name in source:
        places = [place for place, other in enumerate(listed) if other == name]
        expected.append(places[seen[name]] if seen[name] < len(places) else -1)
        seen[name] += 1
    assert match_by_name(ItemHashes(items, items, items), listing).tolist() == expected
    assert isin_sorted(items, np.unique(np.array(listed, dtype=np.uint64))).tolist() == [
        name in listed for name in source
    ]
