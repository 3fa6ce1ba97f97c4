"""MLflow's SQLite database is whole or not there, whenever the process that makes it is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError
from pipeline.training.tracking import EXPERIMENT, ensure_tracking_uri
from pipeline.training.tracking_database import rename_if_incomplete


@pytest.fixture(autouse=True)
def no_other_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's set_tracking_uri writes the environment, and an earlier test of this process may have called it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def killed_at(statement: int, store: ArtifactStore) -> bool:
    """Makes the database in a child that is killed -9 before its n-th SQL statement; False if it came to its end."""
    child = os.fork()
    if child == 0:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        seen = [0]

        @event.listens_for(Engine, "before_cursor_execute")
        def count(*_: Any) -> None:
            seen[0] += 1
            if seen[0] == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            ensure_tracking_uri(store)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def usable(store: ArtifactStore) -> None:
    client = MlflowClient(ensure_tracking_uri(store))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    run = client.create_run(experiment.experiment_id)
    client.log_param(run.info.run_id, "a", 1)


def database(store: ArtifactStore) -> Path:
    return store.local / "services" / "mlflow" / "mlflow.db"


@pytest.mark.parametrize("configured", [False, True])
def test_a_process_killed_while_it_makes_the_database_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    store = ArtifactStore.open(str(tmp_path / "store"))
    file = tmp_path / "own.db" if configured else database(store)
    if configured:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    for statement in (2, 40, 200, 420):
        assert killed_at(statement, store), statement
        assert not file.exists() or file.stat().st_size == 0
    usable(store)
    assert sorted(path.name for path in file.parent.glob(f".{file.name}*")) == []


def test_a_database_that_an_earlier_version_left_half_made_is_set_aside(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path))
    database(store).parent.mkdir(parents=True)
    with sqlite3.connect(database(store)) as half:
        half.execute("CREATE TABLE experiments (experiment_id INTEGER NOT NULL)")
    half.close()
    usable(store)
    kept = list(database(store).parent.glob("mlflow.db.broken-*"))
    assert len(kept) == 1
    usable(store)


def test_garbage_in_its_place_is_set_aside_if_it_was_never_used(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path))
    database(store).parent.mkdir(parents=True)
    database(store).write_bytes(b"not a database" * 100)
    usable(store)
    assert next(database(store).parent.glob("mlflow.db.broken-*")).read_bytes().startswith(b"not a database")


def test_a_database_of_another_mlflow_that_holds_runs_stays_where_it_is(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path))
    ensure_tracking_uri(store)
    with closing(sqlite3.connect(database(store))) as other:
        other.execute("UPDATE alembic_version SET version_num = '728d730b5ebd'")
        other.commit()
    rename_if_incomplete(database(store))
    assert list(database(store).parent.glob("mlflow.db.broken-*")) == []


def test_a_database_that_another_process_has_locked_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore.open(str(tmp_path))
    database(store).parent.mkdir(parents=True)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0.1))
    with closing(sqlite3.connect(database(store))) as other:
        other.execute("CREATE TABLE experiments (experiment_id INTEGER NOT NULL)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="database is locked"):
            ensure_tracking_uri(store)
    assert list(database(store).parent.glob("mlflow.db.broken-*")) == []


def test_a_deleted_database_is_made_again(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path))
    ensure_tracking_uri(store)
    database(store).unlink()
    ensure_tracking_uri(store)
    assert database(store).stat().st_size > 0
