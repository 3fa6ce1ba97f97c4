"""The Prefect server of one run: started on loopback, drained and stopped at its end.

Prefect's own temporary server loses task runs when the process ends (of 50 quick ones, 20 to 44 were recorded). This
server is stopped only after it has recorded the run. This file does not import Prefect, because PREFECT_API_URL must be
set before the import.
"""

from __future__ import annotations

import logging
import os
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from flows.prefect_api import ask
from infra.local.server import check_free
from infra.local.servers import PortTakenError, Server, ServerError, free_port, prefect_server
from pipeline.errors import InputError, WorkError, first_line
from pipeline.file_lock import lock_error, open_lock, try_lock
from pipeline.reachability import http_problem
from pipeline.service_url import shown_url

_log = logging.getLogger("tutelage.prefect")

_DRAIN_S = 15.0


class EmbeddedPrefect:
    """A Prefect server that lives as long as one command.

    Args:
        home: PREFECT_HOME with database and log, reused by later runs. A concurrent command gets another home,
            because two servers must not share one SQLite file.
        port: the port to listen on; None: a free one.
    """

    def __init__(self, home: Path, port: int | None) -> None:
        self._lock, self.home = _own_home(home)
        self.server: Server = prefect_server(self.home, port or free_port())
        self.server.launch()
        os.environ["PREFECT_API_URL"] = self.server.url
        os.environ["PREFECT_HOME"] = str(self.home)

    @property
    def ui(self) -> str:
        """The address for a browser."""
        return self.server.url.removesuffix("/api")

    def wait(self) -> None:
        """Waits until the server answers.

        Raises:
            WorkError: the server did not start; the message names its log.
        """
        try:
            self.server.wait()
        except ServerError as error:
            raise WorkError(f"{first_line(error).rstrip(':')}; its log: {self.server.log}") from None
        try:
            self._settle()
        except OSError as error:
            raise WorkError(f"Prefect server: {error}; its log: {self.server.log}") from error

    def drain(self, flow_run_id: str, task_runs: int, timeout_s: float = _DRAIN_S) -> bool:
        """Waits until the flow run and its task runs are recorded as ended.

        Returns:
            False if that takes too long or the server does not answer. The artifacts of the run are committed by
            then, so this is logged as a warning and is not an error.
        """
        deadline = time.monotonic() + timeout_s
        why = f"not within {timeout_s:g} s"
        try:
            while time.monotonic() < deadline:
                if self._is_recorded(flow_run_id, task_runs):
                    return True
                time.sleep(0.1)
        except OSError as error:
            why = str(error)
        _log.warning("flow run %s: its end may not be recorded in Prefect: %s", flow_run_id, why)
        return False

    def _is_recorded(self, flow_run_id: str, task_runs: int) -> bool:
        """Whether the flow run and at least `task_runs` task runs are recorded as ended."""
        state = self._ask(f"flow_runs/{flow_run_id}").get("state") or {}
        if state.get("type") not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return False
        within = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
        unfinished = ["PENDING", "RUNNING", "SCHEDULED"]
        open_runs = {**within, "task_runs": {"state": {"type": {"any_": unfinished}}}}
        waiting = {**within, "task_runs": {"state": {"name": {"any_": ["NotReady"]}}}}
        known = self._ask("task_runs/count", within)
        # A task run after a failed one stays PENDING, named NotReady.
        pending = self._ask("task_runs/count", open_runs) - self._ask("task_runs/count", waiting)
        return bool(known >= task_runs and pending <= 0)

    def stop(self) -> None:
        """Ends the server; does nothing if it has ended."""
        self.server.stop()
        self._lock.close()

    def _settle(self) -> None:
        """Sets runs in state RUNNING or PENDING to CRASHED: since we hold the lock, their process has ended."""
        lost = self._ask("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}})
        for run in lost:
            state = {"type": "CRASHED", "message": "The process that ran it has ended."}
            self._ask(f"flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return ask(self.server.url, path, body, patience_s=_DRAIN_S)


@contextmanager
def prefect_for_a_run(services: Path) -> Iterator[EmbeddedPrefect | None]:
    """The server of a run: an embedded one, launched and not yet waited for, or None if PREFECT_API_URL is set.

    Args:
        services: folder of the store for servers' data.
    """
    if os.environ.get("PREFECT_API_URL"):
        yield None
        return
    server = EmbeddedPrefect(services / "prefect", port_wanted())
    try:
        yield server
    finally:
        server.stop()
        os.environ.pop("PREFECT_API_URL", None)


def check_server() -> None:
    """Checks that a run can use or start its Prefect server.

    Raises:
        InputError: the server at PREFECT_API_URL does not answer, or the port TUTELAGE_PREFECT_PORT is invalid or
        taken.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        port_wanted()
    # Prefect Cloud and servers with a login require it for the health check.
    elif reason := http_problem(f"{url.rstrip('/')}/health", expected_body=b"true", accepted_statuses=(401, 403)):
        shown = shown_url(url)
        raise InputError(
            f"PREFECT_API_URL={shown}: no Prefect server answers there: {reason}; start it, or unset the variable"
        )
    else:
        _check_login(url)


def _check_login(url: str) -> None:
    """Refuses a server that rejects our login; Prefect itself checks an API key of Prefect Cloud."""
    if os.environ.get("PREFECT_API_KEY"):
        return
    try:
        ask(url.rstrip("/"), "admin/version", patience_s=5)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise InputError(
                f"PREFECT_API_URL={shown_url(url)}: asks for a user and password and refuses ours ({error.code});"
                " set PREFECT_API_AUTH_STRING=USER:PASSWORD"
            ) from None
    except (OSError, ValueError):
        return  # The health check has just succeeded; the run itself will report any other error.


def port_wanted() -> int | None:
    """The port TUTELAGE_PREFECT_PORT; None if it is not set.

    Raises:
        InputError: it is not a port, or the port is taken.
    """
    text = os.environ.get("TUTELAGE_PREFECT_PORT", "")
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise InputError(f"TUTELAGE_PREFECT_PORT={text}: not a port; give a number from 1 to 65535, or unset it")
    try:
        check_free(int(text), "Prefect server")
    except PortTakenError as error:
        raise InputError(f"{error} with TUTELAGE_PREFECT_PORT") from None
    return int(text)


def _own_home(home: Path) -> tuple[IO[bytes], Path]:
    """The first of home, home-2, home-3, ... that no other process has locked, with its lock.

    Raises:
        WorkError: a home cannot be created or locked.
    """
    number = 1
    while True:
        candidate = home if number == 1 else home.with_name(f"{home.name}-{number}")
        try:
            candidate.mkdir(parents=True, exist_ok=True)
            lock = open_lock(candidate / "lock")
        except OSError as error:
            raise lock_error(candidate / "lock", error) from None
        if try_lock(lock):
            return lock, candidate
        lock.close()
        number += 1
