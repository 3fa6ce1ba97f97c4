"""Checks, before work starts, that MLFLOW_TRACKING_URI names a usable MLflow, with shorter timeouts than MLflow's.

MLflow retries an unreachable server for minutes, and a database for an hour. This module does not import MLflow.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import InputError, first_line
from pipeline.reachability import NOT_A_URL, http_problem, problem_within, tcp_problem
from pipeline.service_url import shown_url, without_credentials

VARIABLE = "MLFLOW_TRACKING_URI"
_SEARCH_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SERVER_SCHEMES = ("http", "https")
_MANAGED_URIS = ("databricks", "databricks-uc", "uc")
_DATABASE_SCHEMES = (*_PORTS, "sqlite")
_DATABASE_TIMEOUT_S = 8.0  # timeout of the check of a database
# A request may take 10 s and is tried three times: half a minute if a server disappears during a run.
_TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_SHORT_TIMEOUTS = {
    _TIMEOUT_VARIABLE: "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_TRANSFER_TIMEOUT = "300"
_transfers = 0  # in progress
_transfers_lock = threading.Lock()


def shorten_timeouts() -> None:
    """Sets the timeouts of MLflow's client to seconds, unless the environment sets them."""
    for name, value in _SHORT_TIMEOUTS.items():
        os.environ.setdefault(name, value)


@contextmanager
def allow_long_transfers() -> Iterator[None]:
    """Allows requests that take minutes within the block, unless the environment sets a timeout.

    A server that proxies files answers after it has stored or fetched a whole file: more than 10 s for weights.
    """
    global _transfers
    with _transfers_lock:
        _transfers += 1
        if os.environ.get(_TIMEOUT_VARIABLE) == _SHORT_TIMEOUTS[_TIMEOUT_VARIABLE]:
            os.environ[_TIMEOUT_VARIABLE] = _TRANSFER_TIMEOUT
    try:
        yield
    finally:
        with _transfers_lock:
            _transfers -= 1
            if not _transfers and os.environ.get(_TIMEOUT_VARIABLE) == _TRANSFER_TIMEOUT:
                os.environ[_TIMEOUT_VARIABLE] = _SHORT_TIMEOUTS[_TIMEOUT_VARIABLE]


def check_tracking_uri(uri: str) -> None:
    """Raises InputError unless an MLflow server or database answers at a tracking URI; HTTP 401 and 403 are answers.

    Raises:
        InputError: it does not answer within 10 s; the message is one line.
    """
    if (found := problem_and_fix(uri)) is not None:
        problem, fix = found
        raise InputError(f"{VARIABLE}={shown_url(uri)}: {problem}; {fix}")


def problem_and_fix(uri: str) -> tuple[str, str] | None:
    """Why a tracking URI cannot be used, and how to fix it; None if it answers or its kind cannot be checked."""
    try:
        kind = _kind(uri)
        if kind in _SERVER_SCHEMES:
            return _server_problem(uri)
        if kind in _DATABASE_SCHEMES:
            return _database_problem(uri, kind)
    except ValueError:
        return NOT_A_URL, f"correct {VARIABLE}, or unset it for the embedded one"
    if kind == "folder":
        return "a folder, which MLflow no longer writes to", "use sqlite:///FILE or a server's http URL"
    return None


def can_be_checked(uri: str) -> bool:
    """Whether `problem_and_fix` can check a URI of this kind."""
    return _kind(uri) in (*_SERVER_SCHEMES, *_DATABASE_SCHEMES, "folder")


def _kind(uri: str) -> str:
    """The scheme, without the driver of a database; "folder" for a path; a managed URI itself, e.g. "databricks"."""
    if uri in _MANAGED_URIS:
        return uri
    scheme = uri.partition("://")[0].partition("+")[0].lower() if "://" in uri else "file"
    return "folder" if scheme == "file" or uri.startswith("file:") else scheme


def _server_problem(uri: str) -> tuple[str, str] | None:
    # 401 and 403 are accepted: the client may have credentials that are not in the URL.
    reason = http_problem(f"{uri.rstrip('/')}{_SEARCH_PATH}", accepted_statuses=(401, 403))
    if reason is None:
        return None
    if reason.startswith("answers 404"):
        return "what answers there is no MLflow server", f"correct {VARIABLE}, or unset it for the embedded one"
    return reason, f"start that MLflow server, or unset {VARIABLE} for the embedded one"


def _database_problem(uri: str, scheme: str) -> tuple[str, str] | None:
    split = urlsplit(uri)
    advice = f"start that database, or correct {VARIABLE}"
    if scheme == "sqlite":
        file = Path(uri.partition("///")[2].partition("?")[0]).absolute()
        if not file.parent.is_dir():
            return f"there is no folder {file.parent}", f"create that folder, or correct {VARIABLE}"
    elif split.hostname is not None and (reason := tcp_problem(split.hostname, split.port or _PORTS[scheme])):
        return reason, advice
    reason = problem_within(_DATABASE_TIMEOUT_S, lambda: _connection_failure(uri))
    return None if reason is None else (f"cannot be used ({without_credentials(reason)})", advice)


def _connection_failure(uri: str) -> str | None:
    """Connects and reads the tables; returns why that fails, or None."""
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    try:
        engine = sqlalchemy.create_engine(uri, poolclass=NullPool)
        sqlalchemy.inspect(engine).get_table_names()
    except Exception as error:  # a missing driver, a wrong password, a file that is not a database
        return first_line(getattr(error, "orig", None) or error)
    return None
