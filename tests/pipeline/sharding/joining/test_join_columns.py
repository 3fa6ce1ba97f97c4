"""join-columns: every value stands at the row of its key, and what cannot be joined is refused by name."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns
from pipeline.sharding.joining import spool
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.sharding.joining.stage import JoinColumns
from pipeline.stage import run_stage
from pipeline.storage import open_storage

Join = Callable[..., JoinedColumns]

# In an order of its own: what is joined must not depend on it.
ORDER = [4, 0, 5, 2, 1, 3]
TABLE = {
    "key": [f"a{row}" for row in ORDER],
    "score": [row / 4 for row in ORDER],
    "count": [10 * row for row in ORDER],
    "caption": [f"number {row}" for row in ORDER],
}


def write(folder: Path, suffix: str, table: dict[str, list[Any]]) -> Path:
    """The table as a file; values are written as the format writes them."""
    path = folder / f"new{suffix}"
    arrow = pa.table(table)
    if suffix == ".parquet":
        pq.write_table(arrow, path, row_group_size=2)
    elif suffix == ".arrow":
        with pa.ipc.new_file(path, arrow.schema) as writer:
            writer.write_table(arrow, max_chunksize=4)
    elif suffix == ".ipc":
        with pa.ipc.new_stream(path, arrow.schema) as stream:
            stream.write_table(arrow)
    elif suffix in (".csv", ".tsv"):
        separator = "," if suffix == ".csv" else "\t"
        rows = [table.keys(), *zip(*table.values(), strict=True)]
        path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
    else:
        rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ipc", ".csv", ".tsv", ".jsonl"])
def test_values_stand_at_the_rows_of_their_keys_from_any_format(
    suffix: str, shards: Artifact, join: Join, tmp_path: Path
) -> None:
    columns = join(shards, write(tmp_path, suffix, TABLE))
    assert list(columns.summaries) == ["score", "count", "caption"]
    np.testing.assert_array_equal(columns.numbers("score"), np.arange(6, dtype=np.float32) / 4)
    np.testing.assert_array_equal(columns.numbers("count"), 10 * np.arange(6))
    assert columns.texts("caption").to_pylist() == [[f"number {row}"] for row in range(6)]
    assert columns.valid("score").all()


def test_a_folder_is_joined_as_one_and_hidden_files_are_skipped(shards: Artifact, join: Join, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    (folder / "deep").mkdir(parents=True)
    (folder / ".half-written.csv").write_text("key\n")
    pq.write_table(pa.table({"key": ["a0", "a2", "a4"], "x": pa.array([0, 2, 4], pa.int8())}), folder / "one.parquet")
    (folder / "deep" / "two.csv").write_text("key,x\na5,5\na1,1\na3,3\n")
    assert join(shards, folder).numbers("x").tolist() == [0, 1, 2, 3, 4, 5]


def test_lists_of_numbers_become_rows_of_a_view(shards: Artifact, join: Join, tmp_path: Path) -> None:
    rows = [[row, row + 0.5, -row] for row in ORDER]
    table = {
        "key": TABLE["key"],
        "fixed": pa.array(rows, pa.list_(pa.float32(), 3)),
        "plain": pa.array(rows, pa.list_(pa.float64())),
        "half": pa.array(np.array(rows, np.float16).tolist(), pa.list_(pa.float16())),
        "whole": pa.array([[row, -row] for row in ORDER], pa.large_list(pa.int16())),
    }
    columns = join(shards, write(tmp_path, ".parquet", table))
    expected = np.array([[row, row + 0.5, -row] for row in range(6)])
    for name, dtype in (("fixed", np.float32), ("plain", np.float32), ("half", np.float16)):
        np.testing.assert_array_equal(columns.numbers(name), expected.astype(dtype))
        assert columns.numbers(name).dtype == dtype
    np.testing.assert_array_equal(columns.numbers("whole"), [[row, -row] for row in range(6)])
    batch = columns.batch(np.array([3, 1]))
    assert batch["half"].dtype == np.float32
    assert batch["whole"].dtype == np.int64
    np.testing.assert_array_equal(batch["whole"], [[3, -3], [1, -1]])


def test_numbers_are_views_of_the_mapped_file(shards: Artifact, join: Join, tmp_path: Path) -> None:
    columns = join(shards, write(tmp_path, ".parquet", TABLE))
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "columns.arrow" in line]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in mapped]
    for view in (columns.numbers("score"), columns.numbers("count"), columns.valid("caption")):
        assert any(start <= view.ctypes.data < stop for start, stop in spans)
        assert not view.flags.writeable


def test_several_texts_and_gaps_keep_their_rows(
    shards: Artifact, join: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_CHUNK_ROWS", 4)
    captions = {"a5": ["five", "V"], "a0": ["naught"], "a3": [], "a2": ["", None, "two"], "a1": None}
    table = {"key": list(captions), "captions": pa.array(list(captions.values()), pa.list_(pa.string()))}
    columns = join(shards, write(tmp_path, ".parquet", table), max_missing_share=0.5)
    assert columns.texts("captions").to_pylist() == [["naught"], [], ["two"], [], [], ["five", "V"]]
    assert columns.valid("captions").tolist() == [True, False, True, False, False, True]
    assert columns.summaries["captions"].missing == 3
    index = SampleIndex.open(shards).with_captions(columns.texts("captions"))
    assert [index.captions(row) for row in (0, 1, 5)] == [["naught"], [], ["five", "V"]]
    assert index.row(5).captions == ("five", "V")
    assert SampleIndex.open(shards).captions(5) == []


def test_missing_numbers_are_marked_and_in_no_range(shards: Artifact, join: Join, tmp_path: Path) -> None:
    table = {
        "key": ["a0", "a1", "a2", "a4"],
        "score": [0.5, None, float("nan"), 4.0],
        "count": pa.array([0, 1, None, 4], pa.int32()),
    }
    columns = join(shards, write(tmp_path, ".parquet", table), max_missing_share=0.7, nan="missing")
    np.testing.assert_array_equal(columns.numbers("score"), [0.5, np.nan, np.nan, np.nan, 4.0, np.nan])
    assert columns.numbers("count").tolist() == [0, 1, -1, -1, 4, -1]
    assert columns.valid("count").tolist() == [True, True, False, False, True, False]
    assert columns.in_ranges({"count": (None, 1)}, 0, 6).tolist() == [True, True, False, False, False, False]
    assert columns.in_ranges({"count": (-5, None), "score": (1, None)}, 3, 6).tolist() == [False, True, False]


def test_keys_of_digits_are_text(commit_index: Callable[..., Artifact], join: Join, tmp_path: Path) -> None:
    shards = commit_index(["007", "7"])
    (tmp_path / "x.csv").write_text("id,x\n7,1\n007,2\n")
    assert join(shards, tmp_path / "x.csv", key="id").numbers("x").tolist() == [2, 1]
    table = {"key": pa.array([7], pa.int32()), "x": [3]}
    assert join(shards, write(tmp_path, ".parquet", table), max_missing_share=0.5).numbers("x").tolist() == [-1, 3]


def test_unknown_keys_can_be_dropped_and_columns_chosen(shards: Artifact, join: Join, tmp_path: Path) -> None:
    table = {**TABLE, "key": [key if key != "a4" else "b4" for key in TABLE["key"]]}
    columns = join(
        shards, write(tmp_path, ".jsonl", table), columns=("count",), unknown_keys="drop", max_missing_share=0.2
    )
    assert list(columns.summaries) == ["count"]
    assert columns.numbers("count").tolist() == [0, 10, 20, 30, -1, 50]


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"key": ["a0", "a1", "a2", "a3", "a4", "a-5"]}, {}, r"1 of 6 keys match no sample.*'a-5'.*mean a5"),
        ({"key": ["a0", "a1", "a2", "a1", "a4", "a0"]}, {}, r"several rows have the same key, e\.g\. 'a0', 'a1'"),
        ({"key": ["a0", None, "a2", "a3", "a4", "a5"]}, {}, r"have no 'key'"),
        ({"key": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]}, {}, r"keys are text or whole numbers"),
        ({"score": [0, 1, 2, float("nan"), 4, 5]}, {}, r"key 'a2': the column 'score' is NaN"),
        ({"score": [0, 1, 2, 3, 1e39, 5]}, {}, r"key 'a1': the column 'score' is infinite, or too large for float32"),
        ({"score": [[0, 1], [1, 2], [2], [3, 4], [4, 5], [6, 7]]}, {}, r"'a5'.*has 1 numbers.* have 2"),
        ({"score": [[0, 1], [1, None], [2, 2], [3, 4], [4, 5], [6, 7]]}, {}, r"'a0'.*has a null in its list"),
        ({"score": [[], [], [], [], [], []]}, {}, r"no sample of .* has a value in the column 'score'"),
        ({"score": [None] * 6}, {}, r"no sample of .* has a value in the column 'score'"),
        ({"score": [0, None, 2, 3, None, 5]}, {}, r"2 of 6 samples .*\(33\.3%\), e\.g\. 'a0', 'a1'; max_missing"),
        ({"count": [0, -1, 2, None, 4, 5]}, {"max_missing_share": 0.5}, r"key 'a0'.*holds -1.*as float"),
        ({"count": [b"0", b"1", b"2", b"3", b"4", b"5"]}, {}, r"'count' holds binary; columns are numbers"),
        ({}, {"columns": ("scor",)}, r"unknown column .*'scor'; did you mean score"),
        ({}, {"key": "name"}, r"unknown column .*'name'"),
        ({}, {"columns": ("key",)}, r"'key' is the key"),
        ({"x/valid": [1] * 6}, {}, r"cannot be called 'x/valid'"),
    ],
)
def test_what_cannot_be_joined_is_refused_by_name(
    shards: Artifact, join: Join, tmp_path: Path, change: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    path = write(tmp_path, ".parquet", {**TABLE, **change})
    with pytest.raises(InputError, match=words):
        join(shards, path, **options)


def test_files_that_do_not_fit_together_are_refused(shards: Artifact, join: Join, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "1.csv").write_text("key,x\na0,1\n")
    for text, words in (
        ("key,y\na1,2\n", r"2\.csv: its columns \(y\) are not those of the files before it"),
        ("key,x\na1,2.5\n", r"2\.csv, key 'a1': the column 'x' does not fit int64"),
        ("key,x\na1,two\n", r"2\.csv, key 'a1': the column 'x' does not fit int64"),
        ("key,x\na0,2\n", r"several rows have the same key, e\.g\. 'a0'"),
        ("key,x\na1\n", r"2\.csv: cannot be read"),
    ):
        (folder / "2.csv").write_text(text)
        with pytest.raises(InputError, match=words):
            join(shards, folder)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".jsonl"])
def test_a_damaged_file_is_named(suffix: str, shards: Artifact, join: Join, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(b"key,x\n\xff\xfe\0,{{{\n\xff,\xff\n")
    with pytest.raises(InputError, match=f"bad{suffix}"):
        join(shards, path)


def test_a_source_that_is_not_there_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    for place, words in (
        ("nowhere", "no such file"),
        (".", "holds no file that ends with"),
        ("notes.txt", "not a known kind of table"),
    ):
        with pytest.raises(InputError, match=words):
            JoinColumnsConfig(source=str(tmp_path / place)).check()
    with pytest.raises(InputError, match="names a column twice"):
        parse_config(JoinColumnsConfig, {"source": "x.csv", "columns": ["a", "a"]}, "here")


def test_columns_of_other_shards_are_refused(
    shards: Artifact, commit_index: Callable[..., Artifact], store: ArtifactStore, tmp_path: Path
) -> None:
    config = JoinColumnsConfig(source=str(write(tmp_path, ".csv", TABLE))).resolved()
    artifact = run_stage(JoinColumns(), config, {"shards": shards}, store=store)
    assert artifact.summary["missing"] == {"score": 0, "count": 0, "caption": 0}
    turned = commit_index([f"a{number}" for number in reversed(range(6))], "f" * 20)
    with pytest.raises(InputError, match="were joined to other shards"):
        JoinedColumns.open(artifact, SampleIndex.open(turned))


def test_a_column_asked_for_as_what_it_is_not_is_refused(shards: Artifact, join: Join, tmp_path: Path) -> None:
    table = {**TABLE, "vector": [[1.0, 2.0]] * 6}
    columns = join(shards, write(tmp_path, ".parquet", table))
    for ask, words in (
        (lambda: columns.numbers("caption"), "'caption' is text"),
        (lambda: columns.texts("score"), "'score' is float32; a column of text"),
        (lambda: columns.texts("captoin"), "did you mean caption"),
        (lambda: columns.in_ranges({"vector": (0, 1)}, 0, 6), "has 2 numbers a sample, not one"),
        (lambda: columns.in_ranges({"scor": (0, 1)}, 0, 0), "did you mean score"),
    ):
        with pytest.raises(InputError, match=words):
            ask()


def test_new_data_give_a_new_key_and_the_same_data_the_same_bytes(
    shards: Artifact, store: ArtifactStore, tmp_path: Path
) -> None:
    path = write(tmp_path, ".csv", TABLE)

    def made() -> Artifact:
        return run_stage(JoinColumns(), JoinColumnsConfig(source=str(path)).resolved(), {"shards": shards}, store=store)

    first = made()
    assert made().cached
    os.utime(path, ns=(1, 1))
    second = made()
    assert second.key != first.key
    assert second.files == first.files
    stale = JoinColumnsConfig(source=str(path), columns=("count",)).resolved()
    path.write_text(path.read_text().replace("40", "41"))
    with pytest.raises(InputError, match="changed since the run began"):
        run_stage(JoinColumns(), stale, {"shards": shards}, store=store)
    with pytest.raises(InputError, match="no source fingerprint"):
        run_stage(JoinColumns(), JoinColumnsConfig(source=str(path)), {"shards": shards}, store=store)


def test_a_join_that_was_killed_begins_anew(
    shards: Artifact, store: ArtifactStore, join: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, ".parquet", TABLE)
    with monkeypatch.context() as patched:
        patched.setattr(
            spool.TextSpool, "finish", lambda self: (_ for _ in ()).throw(ConnectionError("the power went"))
        )
        with pytest.raises(ConnectionError):
            join(shards, path)
    assert list(store.local.glob("work/join-columns/*/scratch/column-0"))
    assert join(shards, path).numbers("count").tolist() == [0, 10, 20, 30, 40, 50]


def test_memory_does_not_grow_with_the_rows(
    commit_index: Callable[..., Artifact], store: ArtifactStore, tmp_path: Path
) -> None:
    def peak(rows: int) -> float:
        """Bytes that joining so many rows held at most, in Python and NumPy and in Arrow."""
        keys = pa.array([f"sample-{row:08d}" for row in range(rows)], pa.large_string())
        shards = commit_index(keys, f"{rows:020x}")
        order = np.random.default_rng(0).permutation(rows)
        path = tmp_path / f"{rows}.parquet"
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(order, 8).astype(np.float32)), 8)
        mixed = keys.take(pa.array(order))
        pq.write_table(pa.table({"key": mixed, "v": vectors, "t": mixed}), path, row_group_size=20_000)
        del keys, vectors, mixed
        config = JoinColumnsConfig(source=str(path)).resolved()
        held = pa.total_allocated_bytes()
        max_arrow = 0

        def progress(**_: Any) -> None:
            nonlocal max_arrow
            max_arrow = max(max_arrow, pa.total_allocated_bytes() - held)

        tracemalloc.start()
        artifact = run_stage(JoinColumns(), config, {"shards": shards}, store=store, progress=progress)
        limit = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        columns = JoinedColumns.open(artifact, SampleIndex.open(shards))
        places = np.array([0, rows // 3, rows - 1])
        np.testing.assert_array_equal(columns.numbers("v")[places, 5], places.astype(np.float32))
        assert columns.texts("t")[rows // 3].as_py() == [f"sample-{rows // 3:08d}"]
        return limit + max_arrow

    small, large = peak(100_000), peak(1_000_000)
    # 900,000 rows more are 79 MB of values and keys; buckets and chunks are full with fewer.
    assert large - small < 20e6
    assert large < 60e6


@pytest.mark.servers
def test_a_source_in_s3_is_joined_and_its_version_is_in_the_key(
    shards: Artifact, join: Join, s3_url: str, tmp_path: Path
) -> None:
    storage = open_storage(s3_url)
    for number in range(2):
        table = {name: values[3 * number : 3 * number + 3] for name, values in TABLE.items()}
        storage.upload(write(tmp_path, ".parquet", table), f"scores/part-{number}.parquet")
    storage.write("scores/README.txt", b"not a table")
    columns = join(shards, f"{s3_url}/scores")
    np.testing.assert_array_equal(columns.numbers("count"), 10 * np.arange(6))
    with pytest.raises(InputError, match="3 of 6 samples"):
        join(shards, f"{s3_url}/scores/part-0.parquet")
    before = JoinColumnsConfig(source=f"{s3_url}/scores").resolved().fingerprint
    storage.upload(write(tmp_path, ".parquet", {**TABLE, "count": [1] * 6}), "scores/part-1.parquet")
    assert JoinColumnsConfig(source=f"{s3_url}/scores").resolved().fingerprint != before
    with pytest.raises(InputError, match="holds no file"):
        JoinColumnsConfig(source=f"{s3_url}/nothing").check()
