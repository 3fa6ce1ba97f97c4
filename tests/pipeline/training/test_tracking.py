"""What a training leaves in MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.artifacts import ArtifactStore
from pipeline.progress import silent
from pipeline.stage import Workspace
from pipeline.training.tracking import ensure_tracking_uri, tracked_run


@pytest.fixture(scope="module")
def tracked_store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path_factory.mktemp("tracking")))


@pytest.fixture
def workspace(tracked_store: ArtifactStore, tmp_path: Path) -> Callable[[str], Workspace]:
    def make(key: str) -> Workspace:
        scratch = tracked_store.local / "work" / "train-teacher" / key / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        return Workspace(tmp_path, scratch, tracked_store, key, silent)

    return make


def runs(store: ArtifactStore) -> dict[str, Any]:
    client = MlflowClient(ensure_tracking_uri(store))
    experiment = client.get_experiment_by_name("tutelage")
    assert experiment is not None
    return {run.data.tags["tutelage.key"]: run for run in client.search_runs([experiment.experiment_id])}


def test_a_run_is_resumed_and_its_rows_and_parameters_are_there(
    tracked_store: ArtifactStore, workspace: Callable[[str], Workspace]
) -> None:
    work = workspace("resumed")
    params = {"training": {"steps": 4}, "shards": "shard-dataset/0"}
    with pytest.raises(RuntimeError), tracked_run(work, params) as run:  # noqa: PT012
        run.row({"step": 2, "train/loss": 1.5})
        raise RuntimeError
    assert runs(tracked_store)["resumed"].info.status == "FAILED"
    with tracked_run(work, params) as run:
        run.row({"step": 4, "train/loss": 0.5, "note": "words are left out"})
    found = runs(tracked_store)["resumed"]
    assert found.info.status == "FINISHED"
    assert found.data.params == {"training.steps": "4", "shards": "shard-dataset/0"}
    client = MlflowClient(ensure_tracking_uri(tracked_store))
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(2, 1.5), (4, 0.5)]


def test_an_interrupted_run_is_killed_in_its_words(
    tracked_store: ArtifactStore, workspace: Callable[[str], Workspace]
) -> None:
    with pytest.raises(KeyboardInterrupt), tracked_run(workspace("stopped"), {}):
        raise KeyboardInterrupt
    assert runs(tracked_store)["stopped"].info.status == "KILLED"
