"""A schedule with base=newest: one night makes all, one without news nothing, one with news what follows from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.catalog import find_flow
from flows.cli.app import main
from flows.prefect_api import ask
from flows.run_board import RunBoard, use_board
from infra.local.servers import Server
from pipeline.artifacts import ArtifactStore
from pipeline.config import parse_config
from pipeline.sharding.format.index import SampleIndex
from tests.small_photos import small_photos


@pytest.fixture
def on_server(prefect: Server) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@pytest.fixture
def growing(pictures: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pictures, tmp_path / "growing"))


def run(flow: str, *settings: str) -> RunBoard:
    parameters = small_photos(flow, *settings)
    board = RunBoard()
    with use_board(board):
        find_flow(flow).load()(parameters)
    return board


def states(board: RunBoard) -> dict[str, str]:
    return {row.label: row.state for row in board.rows()}


def state_of_flow(server: Server, board: RunBoard) -> dict[str, Any]:
    state: dict[str, Any] = ask(server.url, f"flow_runs/{board.flow_run_id}")["state"]
    return state


@pytest.mark.servers
def test_a_night_without_news_makes_nothing_and_says_so(
    on_server: None, prefect: Server, growing: Path, tmp_path: Path
) -> None:
    asked = [f"data.source.folder={growing}", "data.base=newest", "teacher.runner.runner=process"]
    asked += ["teacher.training.steps=2"]
    assert set(states(run("train-teacher", *asked)).values()) == {"done"}

    quiet = run("train-teacher", *asked)
    found = states(quiet)
    assert found.pop("shard-dataset") == "nothing new"
    assert {"train-teacher", "evaluate"} <= found.keys()
    assert set(found.values()) == {"cached"}
    state = state_of_flow(prefect, quiet)
    (shards,) = ArtifactStore.open(str(tmp_path / "store")).list("shard-dataset")
    assert (state["type"], state["name"]) == ("COMPLETED", "Nothing new")
    assert state["message"] == f"{shards.name} is up to date"

    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(growing / "blue" / "new.png")
    news = run("train-teacher", *asked)
    assert set(states(news).values()) == {"done"}
    assert state_of_flow(prefect, news)["name"] == "Completed"
    assert len(list(ArtifactStore.open(str(tmp_path / "store")).list("train-teacher"))) == 2


def test_compact_from_the_shell(growing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.sharding.config import ShardingConfig
    from pipeline.sharding.deltas.delta_base import find_base
    from pipeline.sharding.stage import ShardDataset
    from pipeline.stage import run_stage

    store = ArtifactStore.open()

    def shard() -> str:
        values = {"source": {"kind": "image_folder", "folder": str(growing)}, "base": "newest"}
        config = parse_config(ShardingConfig, values, "test").resolved()
        base = find_base(config, store)
        inputs = {} if base is None else {"base": base.artifact}
        return run_stage(ShardDataset(), config, inputs, store=store).name

    first = shard()
    next(growing.glob("red/*")).unlink()
    delta = shard()
    assert main(["data", "compact", delta[:24], "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["of"] == delta
    assert len(SampleIndex.open(store.resolve(said["artifact"]))) == 47
    assert main(["data", "compact", first]) == 0
    assert "nothing to merge" in capsys.readouterr().out
    assert main(["data", "compact", "shard-dataset/00000"]) == 2
    assert "unknown artifact" in capsys.readouterr().err
    assert main(["data", "compact", delta, "--samples-per-shard", "0"]) == 2
    assert "data compact --help" in capsys.readouterr().err
    assert main(["data", "lint", delta, said["artifact"]]) == 0, "samples of the base that are gone are no fault"
    assert main(["data", "stats", delta]) == 0
    assert main(["data", "preview", delta]) == 0
    assert main(["artifacts", "verify", delta]) == 0
    shutil.rmtree(store.resolve(first).url)
    assert main(["artifacts", "verify", said["artifact"]]) == 0
    capsys.readouterr()
    assert main(["data", "lint", delta]) == 1
    assert "shard-missing" in capsys.readouterr().out
    assert main(["artifacts", "verify", delta]) == 1
    assert f"{delta} needs {first}, which is missing from" in capsys.readouterr().err
