"""Checks that a Prefect server's scheduler creates runs: a server with a failing scheduler still answers requests.

The only proof is a new scheduled run. So an empty deployment with a schedule a month ahead is created, and deleted with
its runs as soon as they appear, within seconds. No worker serves it; the next check deletes what a killed one left.
"""

from __future__ import annotations

import contextlib
import http.client
import time
import urllib.error
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.cli.doctor_services import Found
from flows.prefect_api import ask

_PROBE = "tutelage-doctor-"
_MONTH_S = 30 * 86400
# Longer than any check takes: an older probe is left over.
_LEFT_OVER = timedelta(minutes=10)
_PATIENCE_S = 5.0  # for the retries of one request


def scheduler_service(api: str, within_s: float | None = None) -> Found:
    """Whether the server creates runs for a new schedule, and whether workers take runs: (status, finding, fix).

    Args:
        api: PREFECT_API_URL, of a server that answers.
        within_s: time limit for its scheduler; default: two of its loops and 5 s.
    """
    api = api.rstrip("/")
    try:
        _sweep(api)
        within_s = within_s if within_s is not None else 2 * _loop_s(api) + 5
        seconds = _probe(api, within_s)
        late = _ask(api, "flow_runs/count", {"flow_runs": {"state": {"name": {"any_": ["Late"]}}}})
    except urllib.error.HTTPError as error:
        error.close()
        return (
            "warn",
            f"not asked, the server answers {error.code} {error.reason}",
            "Run it again, with a login that may create deployments.",
        )
    except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
        return "warn", f"not asked, its answers cannot be read ({type(error).__name__})", "Ask it again."
    if seconds is None:
        return (
            "fail",
            f"created no run for a new schedule in {within_s:.0f} s: no scheduled run will start",
            "See the server's log; it needs its scheduler on (PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED) "
            "and the packages of constraints.txt.",
        )
    if late:
        fix = "Start a worker of their pool: prefect worker start --pool tutelage"
        return "warn", f"creates runs, but {late} are late: no worker takes them", fix
    return "ok", f"created a run for a new schedule in {seconds:.0f} s", ""


def _probe(api: str, within_s: float) -> float | None:
    """Seconds until the scheduler creates a run of a new deployment, which is then deleted; None: not in time."""
    name = f"{_PROBE}{uuid.uuid4().hex[:12]}"
    flow = _ask(api, "flows/", {"name": name})["id"]
    try:
        first = datetime.now(UTC) + timedelta(seconds=_MONTH_S)
        schedule = {"interval": _MONTH_S, "anchor_date": first.isoformat()}
        probe = {"name": name, "flow_id": flow, "schedules": [{"schedule": schedule, "active": True}]}
        deployment = _ask(api, "deployments/", probe)["id"]
        started = time.monotonic()
        while time.monotonic() - started < within_s:
            if _ask(api, "flow_runs/count", {"deployments": {"id": {"any_": [deployment]}}}):
                return time.monotonic() - started
            time.sleep(0.2)
        return None
    finally:
        _delete(api, flow)


def _sweep(api: str) -> None:
    """Deletes the probes of killed checks."""
    before = datetime.now(UTC) - _LEFT_OVER
    for flow in _ask(api, "flows/filter", {"flows": {"name": {"like_": _PROBE}}}):
        if flow["name"].startswith(_PROBE) and datetime.fromisoformat(flow["created"]) < before:
            _delete(api, flow["id"])


def _delete(api: str, flow: str) -> None:
    """Deletes a flow, its deployments and its runs."""
    with contextlib.suppress(urllib.error.HTTPError):  # Deleted already, or left to the next check.
        ask(api, f"flows/{flow}", method="DELETE", patience_s=_PATIENCE_S)


def _loop_s(api: str) -> float:
    """The interval in seconds at which the scheduler looks for new deployments."""
    settings = _ask(api, "admin/settings")
    return float(settings["server"]["services"]["scheduler"]["recent_deployments_loop_seconds"])


def _ask(api: str, path: str, body: dict[str, Any] | None = None) -> Any:
    return ask(api, path, body, patience_s=_PATIENCE_S)
