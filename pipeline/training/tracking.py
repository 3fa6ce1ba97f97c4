"""Tracks a training in MLflow: one run per training, in the experiment "tutelage".

Only the driver logs. Without MLFLOW_TRACKING_URI the runs are in an SQLite file inside the store.
A training that is resumed after a kill continues in the same MLflow run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError, WorkError, first_line
from pipeline.file_lock import file_lock
from pipeline.printable import printable
from pipeline.service_url import shown_url, without_credentials
from pipeline.stage import Workspace
from pipeline.training.system_metrics import SystemMetrics
from pipeline.training.tracking_database import create_database, is_nonempty_file, rename_if_incomplete, sqlite_file
from pipeline.training.tracking_uri import VARIABLE, check_tracking_uri, shorten_timeouts

EXPERIMENT = "tutelage"
_log = logging.getLogger("tutelage.training")
_FLUSH_EVERY_S = 5.0
_PAUSE_FACTOR = 20  # times the duration of a failed attempt
_METRICS_PER_CALL = 1000  # MLflow's limit
_MAX_PARAM_CHARACTERS = 6000  # MLflow's limit


shorten_timeouts()


def _refuse_in_one_line(tracking_uri: Callable[[ArtifactStore], str]) -> Callable[[ArtifactStore], str]:
    """Checks within 10 s that a configured MLflow answers; a failure becomes an InputError of one line."""

    @wraps(tracking_uri)
    def checked(store: ArtifactStore) -> str:
        configured = os.environ.get(VARIABLE)
        if configured is not None:
            check_tracking_uri(configured)
        try:
            return tracking_uri(store)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            where = shown_url(configured) if configured is not None else f"{store.local}/services/mlflow"
            raise InputError(
                f"MLflow at {where} cannot be used ({without_credentials(first_line(error))}); "
                + _advice(error, configured)
            ) from None

    return checked


def _advice(error: Exception, configured: str | None) -> str:
    if configured is None:
        return "see that the folder has room and can be written, or move it away to begin with a new one"
    if isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403):
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    return f"check {VARIABLE}"


def tracking_uri_in_a_run(store: ArtifactStore) -> str:
    """The tracking URI, for a run that has already begun.

    Raises:
        WorkError: MLflow was available when the run began, but no longer is.
    """
    try:
        return ensure_tracking_uri(store)
    except InputError as error:
        raise WorkError(str(error)) from None


@_refuse_in_one_line
def ensure_tracking_uri(store: ArtifactStore) -> str:
    """The tracking URI; creates its database and the experiment if they do not exist.

    Processes that open a new SQLite database at the same time break each other's migration, and a process killed
    during it corrupts the database; this call creates a temporary one under a file lock and renames it.

    Raises:
        InputError: it cannot be used; raised within 10 s if nothing answers.
    """
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    folder = store.local.resolve() / "services" / "mlflow"
    uri = configured or f"sqlite:///{folder / 'mlflow.db'}"
    marker = folder / "made"
    database = sqlite_file(uri)
    if configured is None and marker.exists() and database is not None and is_nonempty_file(database):
        return uri
    lock = folder / "lock" if configured is None or database is None else database.with_name(f"{database.name}.lock")
    with file_lock(lock):
        if database is not None:
            if configured is None and not marker.exists():
                rename_if_incomplete(database)
            if not is_nonempty_file(database):
                create_database(database)
        client = MlflowClient(uri)
        if client.get_experiment_by_name(EXPERIMENT) is None:
            artifact_location = None if configured else (folder / "artifacts").as_uri()
            try:
                client.create_experiment(EXPERIMENT, artifact_location=artifact_location)
            except MlflowException:
                # On a server, another machine may have created it first.
                if client.get_experiment_by_name(EXPERIMENT) is None:
                    raise
        if configured is None:
            marker.touch()
    return uri


def log_report(store: ArtifactStore, file: Path, *, name: str, tags: Mapping[str, str]) -> None:
    """Logs a report to MLflow, in its own run.

    Raises:
        WorkError: MLflow cannot be used.
    """
    client = MlflowClient(tracking_uri_in_a_run(store))
    with mlflow_failures(f"{file.name} is not in MLflow"):
        run = client.create_run(
            _experiment_id(client), run_name=name, tags={key: _param_text(value) for key, value in tags.items()}
        )
        client.log_artifact(run.info.run_id, str(file))
        client.set_terminated(run.info.run_id)


@contextmanager
def mlflow_failures(what: str) -> Iterator[None]:
    """Converts an MLflow error in the block to a WorkError, one line that begins with `what`."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        reason = without_credentials(first_line(error))
        raise WorkError(f"{what} ({reason}); see that MLflow can be used, then run it again") from error


def _experiment_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        raise WorkError(f"experiment {EXPERIMENT!r} was deleted in MLflow; restore it there")
    return str(experiment.experiment_id)


class TrackedRun:
    """An open MLflow run; rows are sent in batches with the state of the machine, every few seconds and at the end."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._queued: list[Metric] = []
        self._sent_at = time.monotonic()
        self._pause_s = _FLUSH_EVERY_S
        self._machine = SystemMetrics()

    def row(self, row: Mapping[str, Any]) -> None:
        """Queues a line of metrics.jsonl."""
        now = int(time.time() * 1000)
        step = int(row["step"])
        self._queued += [
            Metric(name, float(value), now, step)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float)
        ]
        if time.monotonic() - self._sent_at >= self._pause_s:
            self._queued += [Metric(name, value, now, step) for name, value in self._machine.read().items()]
            self.flush()

    def table(self, columns: Mapping[str, Sequence[Any]], file: str) -> None:
        """Logs a table (column by name) as an artifact; a failure is a warning, because the store has the table too."""
        name = f"{Path(file).stem}.json"  # the format that MLflow's UI shows as a table
        try:
            self._client.log_table(self.run_id, {key: list(values) for key, values in columns.items()}, name)
        except (MlflowException, OSError) as error:
            _log.warning("MLflow run %s: no %s (%s)", self.run_id, name, without_credentials(first_line(error)))

    def flush(self) -> None:
        """Sends the queued rows; if the server does not answer, logs a warning and the training continues."""
        began = time.monotonic()
        self._pause_s = _FLUSH_EVERY_S
        try:
            while self._queued:
                self._client.log_batch(self.run_id, metrics=self._queued[:_METRICS_PER_CALL])
                del self._queued[:_METRICS_PER_CALL]
        except MlflowException as error:
            reason = without_credentials(first_line(error))
            _log.warning("MLflow run %s: %d metrics not logged yet (%s)", self.run_id, len(self._queued), reason)
            # The training waits meanwhile: an unreachable server costs it at most a twentieth of its time.
            self._pause_s = max(_FLUSH_EVERY_S, _PAUSE_FACTOR * (time.monotonic() - began))
        self._sent_at = time.monotonic()


@contextmanager
def tracked_run(work: Workspace, params: Mapping[str, Any]) -> Iterator[TrackedRun]:
    """The MLflow run of the artifact in `work`; its status is FINISHED, FAILED or KILLED when the block ends."""
    client = MlflowClient(tracking_uri_in_a_run(work.store))
    with mlflow_failures("the training cannot be followed in MLflow"):
        run_id = _resume_run(client, work.scratch / "mlflow_run") or _create_run(client, work, params)
    run = TrackedRun(client, run_id)
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        run.flush()
        try:
            client.set_terminated(run_id, status)
        except MlflowException as error:
            _log.warning("MLflow run %s: could not be ended as %s (%s)", run_id, status, first_line(error))


def _resume_run(client: MlflowClient, id_file: Path) -> str | None:
    if not id_file.exists():
        return None
    run_id = id_file.read_text()
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException:
        # The run was deleted, or the tracking server has changed.
        return None
    return run_id


def _create_run(client: MlflowClient, work: Workspace, params: Mapping[str, Any]) -> str:
    stage = work.scratch.parents[1].name
    tags = {"tutelage.stage": stage, "tutelage.key": work.key}
    run = client.create_run(_experiment_id(client), run_name=f"{stage}-{work.key[:8]}", tags=tags)
    run_id: str = run.info.run_id
    flat = sorted(_flattened(params).items())
    for start in range(0, len(flat), 100):
        entries = [Param(name, _param_text(value)) for name, value in flat[start : start + 100]]
        client.log_batch(run_id, params=entries)
    (work.scratch / "mlflow_run").write_text(run_id)
    return run_id


def _param_text(value: Any) -> str:
    return printable(without_credentials(str(value)), _MAX_PARAM_CHARACTERS)


def _flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flattened(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
