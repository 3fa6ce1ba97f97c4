"""A row's chunk is found by its number, and rows of several chunks are read in the order they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.sharding.writing.chunks import SCHEMA, ChunkResult, PlanColumns, key_of_row, read_rows, write_table
from pipeline.sharding.writing.scratch import Scratch

SIZES = (3, 0, 1, 4)


def chunks_of(folder: Path) -> tuple[Scratch, PlanColumns]:
    """Chunks with the keys k0, k1, ... in all."""
    scratch = Scratch(folder)
    scratch.prepare()
    results, start = [], 0
    for chunk, size in enumerate(SIZES):
        columns = {
            field.name: [[] if field.name == "captions" else "" if field.type == SCHEMA.field("key").type else 0] * size
            for field in SCHEMA
        }
        columns["key"] = [f"k{row}" for row in range(start, start + size)]
        start += size
        results.append(ChunkResult(size, "", 0, ("a",), ((),), (), {}))
        write_table(scratch, chunk, columns, results[-1])
    return scratch, PlanColumns.load(scratch, results)


def test_a_row_is_found_in_its_chunk_beside_an_empty_one(tmp_path: Path) -> None:
    scratch, columns = chunks_of(tmp_path)
    chunks, rows = columns.locate(np.arange(8))
    assert chunks.tolist() == [0, 0, 0, 2, 3, 3, 3, 3]
    assert rows.tolist() == [0, 1, 2, 0, 0, 1, 2, 3]
    assert [key_of_row(scratch, columns, row) for row in range(8)] == [f"k{row}" for row in range(8)]


def test_rows_of_several_chunks_come_in_the_order_they_are_asked_for(tmp_path: Path) -> None:
    scratch, columns = chunks_of(tmp_path)
    wanted = np.array([7, 0, 3, 5, 2, 4])
    table = read_rows(scratch, *columns.locate(wanted), ["key", "width"])
    assert table.column_names == ["key", "width"]
    assert table.column("key").to_pylist() == [f"k{row}" for row in wanted]
    assert table.column("key").num_chunks == 1
