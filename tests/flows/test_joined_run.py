"""Columns joined in a run: made beside the shards, read in training, made anew only when the file changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.catalog import find_flow
from flows.run_board import RunBoard, use_board
from infra.local.servers import Server
from pipeline.artifacts import ArtifactStore
from pipeline.sharding.format.index import SampleIndex
from tests.small_photos import small_photos

pytestmark = pytest.mark.servers

PROCESS = [f"{part}.runner.runner=process" for part in ("teacher", "student", "clip")]
QUICK = ["teacher.training.steps=2", "student.training.steps=2", "clip.training.steps=4", "clip.validation_pairs=0"]


@pytest.fixture
def on_server(prefect: Server) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def states(flow: str, *settings: str) -> dict[str, str]:
    """Runs a flow with the preset photos, made small and changed by settings; gives stage -> done or cached."""
    parameters = small_photos(flow, *settings)
    board = RunBoard()
    with use_board(board):
        find_flow(flow).load()(parameters)
    return {row.label: row.state for row in board.rows()}


def test_new_captions_and_scores_change_what_reads_them_and_nothing_else(
    on_server: None, pictures: Path, tmp_path: Path
) -> None:
    data = [f"data.source.folder={pictures}", "data.split.val_share=0.2", "data.split.test_share=0.2"]
    assert states("shard-dataset", *data, "leaks=null") == {"shard-dataset": "done"}
    shards = next(ArtifactStore.open(str(tmp_path / "store")).list("shard-dataset"))
    index = SampleIndex.open(shards)
    new = tmp_path / "new.csv"
    rows = [f"{index.key(row)},{row / len(index)},the picture {index.key(row)}" for row in range(len(index))]
    new.write_text("\n".join(["key,quality,caption", *rows]))

    asked = [*data, *PROCESS, *QUICK, f"columns.source={new}"]
    asked += ["clip.captions_from=caption", "clip.keep={quality: [0.1, null]}", "evaluation.captions_from=caption"]
    assert states("pretrain-clip", *asked) == {
        "shard-dataset": "cached",
        "join-columns": "done",
        "train-teacher": "done",
        "distill-student": "done",
        "pretrain-clip": "done",
        "evaluate clip": "done",
    }
    assert set(states("pretrain-clip", *asked).values()) == {"cached"}

    new.write_text(new.read_text().replace("the picture", "a picture"))
    again = states("pretrain-clip", *asked)
    made = [name for name, state in again.items() if state == "done"]
    assert made == ["join-columns", "pretrain-clip", "evaluate clip"]
