"""The index gives back what was put in, from either file, without copying."""

from __future__ import annotations

import gc
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DamagedError, UnknownNameError
from pipeline.sharding.format.index import SPLITS, SampleIndex, SampleRow, TaxonomyNode
from pipeline.storage.sha256 import file_sha256
from tests.small_shards import index_of

INT32 = st.integers(0, 2**31 - 1)
ROWS = st.lists(
    st.builds(
        SampleRow,
        key=st.text(min_size=1, max_size=12),
        shard=INT32,
        offset=st.integers(0, 2**62),
        length=INT32,
        label=st.integers(-1, 2**31 - 1),
        captions=st.lists(st.text(max_size=20), max_size=4).map(tuple),
        width=INT32,
        height=INT32,
        content_hash=st.text("0123456789abcdef", min_size=32, max_size=32),
        split=st.integers(0, 2),
        group=INT32,
        node=st.integers(-1, 2**31 - 1),
        family=st.sampled_from(["", "noto", "openmoji", "héros"]),
    ),
    max_size=20,
)
TAXONOMY = (TaxonomyNode("root", -1), TaxonomyNode("leaf", 0))


def build(rows: list[SampleRow]) -> SampleIndex:
    return index_of(rows, shard_names=["shards/train-00000.tar"], label_names=["cat", "dog"], taxonomy=TAXONOMY)


@given(ROWS)
@settings(max_examples=20, deadline=None)
def test_both_files_give_back_every_row(rows: list[SampleRow]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(rows).write(folder)
        for file in ("index.arrow", "index.parquet"):
            index = SampleIndex.read(folder / file)
            assert [index.row(id) for id in range(len(index))] == rows
            assert index.shard_names == ("shards/train-00000.tar",)
            assert index.label_names == ("cat", "dog")
            assert index.taxonomy == TAXONOMY
            for id, row in enumerate(rows):
                assert index.key(id) == row.key
                assert index.captions(id) == list(row.captions)
                assert index.content_hash(id) == row.content_hash
                assert index.family(id) == row.family
                assert index.offsets[id] == row.offset
                assert index.labels[id] == row.label


@given(ROWS)
@settings(max_examples=15, deadline=None)
def test_fingerprint_is_the_arrow_file_s_digest_and_the_same_from_parquet(rows: list[SampleRow]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        built = build(rows)
        built.write(folder)
        expected = file_sha256(folder / "index.arrow")
        assert built.fingerprint == expected
        assert SampleIndex.read(folder / "index.arrow").fingerprint == expected
        assert SampleIndex.read(folder / "index.parquet").fingerprint == expected


@given(ROWS, st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_an_index_put_together_from_parts_is_the_one_built_at_once(rows: list[SampleRow], cut: int) -> None:
    whole = build(rows)
    parts = [whole.table.slice(0, cut), whole.table.slice(cut)]
    names = {"shard_names": whole.shard_names, "label_names": whole.label_names, "taxonomy": whole.taxonomy}
    with tempfile.TemporaryDirectory() as folder:
        assembled = SampleIndex.assemble(parts, Path(folder), **names)
        # A run that goes on after a kill finds the files of the one before, whose index is mapped still.
        again = SampleIndex.assemble(parts, Path(folder), **names)
        assert assembled.fingerprint == again.fingerprint == whole.fingerprint
        assert SampleIndex.assemble([], Path(folder), **names).fingerprint == build([]).fingerprint


def test_an_index_put_together_on_disk_is_not_held_in_memory(tmp_path: Path) -> None:
    rows = [row(number) for number in range(20_000)]
    parts = [build(rows[start : start + 1000]).table for start in range(0, len(rows), 1000)]
    whole = build(rows)
    expected = whole.fingerprint
    names = {"shard_names": whole.shard_names, "label_names": whole.label_names, "taxonomy": whole.taxonomy}
    del whole
    gc.collect()
    before = pa.total_allocated_bytes()
    in_memory = pa.concat_tables(part.replace_schema_metadata(None) for part in parts).combine_chunks()
    assert pa.total_allocated_bytes() - before > 80 * len(rows)
    del in_memory
    assembled = SampleIndex.assemble(parts, tmp_path, **names)
    assert pa.total_allocated_bytes() - before < len(rows)
    assert assembled.fingerprint == expected


def row(number: int, split: int = 0) -> SampleRow:
    return SampleRow(f"k{number}", 0, 512 * number, 9, 0, ("a", "b"), 4, 4, "00", split, number, -1, "noto")


def test_numeric_columns_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    build([row(number) for number in range(100)]).write(tmp_path)
    index = SampleIndex.read(tmp_path / "index.arrow")
    for column in (index.labels, index.offsets, index.lengths, index.groups, index.splits, index.family_codes):
        assert not column.flags.owndata
        assert not column.flags.writeable


def test_splits_partition_the_rows_in_order(tmp_path: Path) -> None:
    index = build([row(number, split=number % 3) for number in range(10)])
    found = np.sort(np.concatenate([index.rows(split) for split in SPLITS]))
    assert found.tolist() == index.rows().tolist() == list(range(10))
    assert index.rows("val").tolist() == [1, 4, 7]
    assert index.rows("val").dtype == np.int64
    with pytest.raises(UnknownNameError, match="did you mean train"):
        index.rows("trian")


def test_numpy_ids_are_ids(tmp_path: Path) -> None:
    index = build([row(number) for number in range(3)])
    id = index.rows()[2]
    assert index.key(id) == "k2"
    assert index.row(id).group == 2


def test_a_file_that_is_no_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.arrow").write_bytes(b"not arrow at all")
    with pytest.raises(DamagedError, match=r"index\.arrow: not a sample index"):
        SampleIndex.read(tmp_path / "index.arrow")
    build([row(0)]).write(tmp_path)
    torn = (tmp_path / "index.arrow").read_bytes()[:200]
    (tmp_path / "index.arrow").write_bytes(torn)
    with pytest.raises(DamagedError):
        SampleIndex.read(tmp_path / "index.arrow")
    pq.write_table(pq.read_table(tmp_path / "index.parquet").select(["key"]), tmp_path / "less.parquet")
    with pytest.raises(DamagedError, match=r"less\.parquet"):
        SampleIndex.read(tmp_path / "less.parquet")


def test_a_row_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(row(1))) == row(1)
