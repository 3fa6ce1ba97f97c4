"""Stored outputs of a teacher in a flow: asked for once, or given; a teacher that nobody asks is not made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.catalog import find_flow
from flows.run_board import RunBoard, use_board
from infra.local.servers import Server
from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns
from tests.small_photos import small_photos

STORED = "student.distillation.teacher_column=logits"


def test_a_range_needs_a_file_that_has_the_outputs_too() -> None:
    with pytest.raises(InputError, match=r"student: reads joined columns .* columns\.source"):
        small_photos("distill-student", STORED, "student.keep={quality: [0.5, null]}")


@pytest.fixture
def on_server(prefect: Server) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def states(flow: str, *settings: str) -> dict[str, str]:
    """Runs a flow with the preset photos, made small and changed by settings; gives stage -> done or cached."""
    board = RunBoard()
    with use_board(board):
        find_flow(flow).load()(small_photos(flow, *settings))
    return {row.label: row.state for row in board.rows()}


@pytest.mark.servers
def test_a_student_of_a_mixture_learns_from_outputs_that_are_stored_once(
    on_server: None, pictures: Path, tmp_path: Path
) -> None:
    """Two data sets are put together; a teacher of both is asked once; another student finds its outputs."""
    store = ArtifactStore.open(str(tmp_path / "store"))
    data = [f"data.source.folder={pictures}", "data.split.test_share=0.2", "leaks=null"]
    for share in (0.2, 0.3):
        assert states("shard-dataset", *data, f"data.split.val_share={share}") == {"shard-dataset": "done"}
    one, other = (artifact.name for artifact in store.list("shard-dataset"))
    asked = [f"mixture={{one: {one}, other: {other}}}", "teacher.policy={kind: mixture, weights: {one: 1, other: 2}}"]
    asked += [f"{part}.runner.runner=process" for part in ("teacher", "student")]
    asked += ["teacher.training.steps=2", "student.training.steps=2", STORED]
    assert states("distill-student", *asked) == {
        "mix-datasets": "done",
        "train-teacher": "done",
        "teacher-outputs": "done",
        "distill-student": "done",
        "evaluate teacher": "done",
        "evaluate student": "done",
    }
    again = states("distill-student", *asked, "student.training.steps=3")
    assert [name for name, state in again.items() if state == "done"] == ["distill-student", "evaluate student"]

    # The same outputs as a file that somebody gives: no teacher is made for them.
    (mixed,), (outputs,) = store.list("mix-datasets"), store.list("teacher-outputs")
    index = SampleIndex.open(mixed)
    columns = JoinedColumns.open(outputs, index)
    rows = index.rows("train")
    table = {"key": index.keys.take(pa.array(rows)), "logits": pa.array(columns.numbers("logits")[rows].tolist())}
    pq.write_table(pa.table(table), tmp_path / "outputs.parquet")
    given = [f"columns.source={tmp_path / 'outputs.parquet'}", "columns.max_missing_share=1.0"]
    assert states("distill-student", *asked, *given) == {
        "mix-datasets": "cached",
        "join-columns": "done",
        "distill-student": "done",
        "evaluate student": "done",
    }
