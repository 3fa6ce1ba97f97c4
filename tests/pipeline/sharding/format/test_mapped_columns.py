"""Columns in files hold what they would in memory, without being there."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sharding.format.mapped_columns import concat_on_disk, mapped_numbers

SCHEMA = pa.schema(
    {
        "number": pa.uint64(),
        "share": pa.float64(),
        "text": pa.large_string(),
        "captions": pa.large_list(pa.large_string()),
        "boxes": pa.large_list(pa.large_list(pa.int8())),
        "source": pa.dictionary(pa.int16(), pa.string()),
    }
)
NAMES = ["a", "b", "c"]
ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=5),
        st.lists(st.text(max_size=5), max_size=3),
        st.lists(st.lists(st.integers(-128, 127), max_size=2), max_size=2),
        st.integers(0, 2),
    ),
    max_size=20,
)


def table_of(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(SCHEMA)
    arrays = [pa.array(values, field.type) for values, field in zip(columns[:-1], SCHEMA, strict=False)]
    codes = pa.DictionaryArray.from_arrays(pa.array(columns[-1], pa.int16()), pa.array(NAMES))
    return pa.Table.from_arrays([*arrays, codes], schema=SCHEMA)


@given(ROWS, st.lists(st.integers(0, 20), max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_cut_into_parts_gives_the_whole(rows: list[tuple[Any, ...]], cuts: list[int]) -> None:
    whole = table_of(rows)
    edges = sorted({0, *(min(cut, len(rows)) for cut in cuts), len(rows)})
    parts = [whole.slice(start, end - start) for start, end in itertools.pairwise(edges)]
    with tempfile.TemporaryDirectory() as folder:
        made = concat_on_disk(parts, SCHEMA, Path(folder))
        made.validate(full=True)
        assert made.to_pydict() == whole.to_pydict()
        assert all(column.num_chunks == 1 for column in made.columns)
        # Parts may be made of several chunks, and a second call may take what the first gave.
        again = concat_on_disk([pa.concat_tables([made, whole])], SCHEMA, Path(folder))
        assert again.to_pydict() == pa.concat_tables([whole, whole]).to_pydict()
        assert made.to_pydict() == whole.to_pydict()


def test_parts_are_looked_at_one_after_another(tmp_path: Path) -> None:
    held: list[int] = []

    def parts() -> Any:
        for _ in range(20):
            yield table_of([(1, 0.5, "x" * 100, ["y" * 100], [], 0)] * 1000)
            held.append(pa.total_allocated_bytes())

    made = concat_on_disk(parts(), SCHEMA, tmp_path)
    assert len(made) == 20_000
    assert max(held) - min(held) < 500_000  # A part is 250 kB.


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([1, None], pa.uint64()), "number: holds nulls"),
        (pa.array([1, 2], pa.uint64()), None),
    ],
)
def test_nulls_are_refused(tmp_path: Path, column: pa.Array, says: str | None) -> None:
    schema = pa.schema({"number": pa.uint64()})
    if says is None:
        assert concat_on_disk([pa.table({"number": column})], schema, tmp_path).num_rows == 2
        return
    with pytest.raises(ValueError, match=says):
        concat_on_disk([pa.table({"number": column})], schema, tmp_path)


def test_parts_that_number_their_names_otherwise_are_refused(tmp_path: Path) -> None:
    schema = pa.schema({"source": pa.dictionary(pa.int16(), pa.string())})
    parts = [
        pa.table({"source": pa.DictionaryArray.from_arrays(pa.array([0], pa.int16()), pa.array([name]))})
        for name in ("a", "b")
    ]
    with pytest.raises(ValueError, match="different dictionaries"):
        concat_on_disk(parts, schema, tmp_path)


def test_a_column_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no file for a column of bool"):
        concat_on_disk([], pa.schema({"flag": pa.bool_()}), tmp_path)


def test_mapped_numbers_lie_in_their_file(tmp_path: Path) -> None:
    first = mapped_numbers(tmp_path / "n", np.int32, 5)
    first[:] = 7
    second = mapped_numbers(tmp_path / "n", np.int32, 3)
    assert second.tolist() == [0, 0, 0]
    assert first.tolist() == [7] * 5
    second[1] = 2
    assert np.fromfile(tmp_path / "n", dtype=np.int32).tolist() == [0, 2, 0]
    assert mapped_numbers(tmp_path / "none", np.int32, 0).tolist() == []
    assert (tmp_path / "n").stat().st_blocks > 0


def test_a_disk_that_is_too_small_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"(No space left on device|File too large): '.*/n'"):
        mapped_numbers(tmp_path / "n", np.int64, 1 << 59)
