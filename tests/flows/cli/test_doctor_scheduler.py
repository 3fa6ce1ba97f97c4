"""The doctor asks a Prefect server's scheduler for a run, and leaves nothing of it behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.cli import doctor, doctor_scheduler
from flows.cli.doctor_scheduler import scheduler_service
from flows.prefect_api import ask
from infra.local.servers import Server, free_port, prefect_server

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def idle(prefect_home: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that answers, whose scheduler does not run."""
    server = prefect_server(prefect_home(tmp_path_factory.mktemp("idle") / "home"), free_port())
    server.env = {**server.env, "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false"}
    with server:
        yield server


def probes(server: Server) -> list[Any]:
    """What looks have left on a server: flows, deployments and runs."""
    mine = {"flows": {"name": {"like_": "tutelage-doctor"}}}
    return [one for kind in ("flows", "deployments", "flow_runs") for one in ask(server.url, f"{kind}/filter", mine)]


def test_a_scheduler_that_lives_makes_a_run_and_the_probe_is_gone(prefect: Server, tmp_path: Path) -> None:
    checks = doctor.examine(str(tmp_path), env={"PREFECT_API_URL": prefect.url})
    found = {check.name: check for check in checks}
    assert found["Prefect"].status == "ok"
    assert found["scheduler"].found.startswith("created a run for a new schedule in ")
    assert found["scheduler"].status == "ok"
    assert probes(prefect) == []


def test_a_server_that_answers_and_schedules_nothing_fails(idle: Server) -> None:
    status, found, fix = scheduler_service(idle.url, within_s=8)
    assert (status, found) == ("fail", "created no run for a new schedule in 8 s: no scheduled run will start")
    assert "constraints.txt" in fix
    assert probes(idle) == []


def test_what_a_killed_look_left_is_swept_and_what_a_look_just_made_is_not(
    idle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = ask(idle.url, "flows/", {"name": "tutelage-doctor-0123456789ab"})["id"]
    ask(idle.url, "deployments/", {"name": "left", "flow_id": flow})
    other = ask(idle.url, "flows/", {"name": "my-tutelage-doctor-flow"})["id"]
    scheduler_service(idle.url, within_s=0)
    assert len(probes(idle)) > 2
    monkeypatch.setattr(doctor_scheduler, "_LEFT_OVER", timedelta(0))
    scheduler_service(idle.url, within_s=0)
    assert [one["id"] for one in probes(idle)] == [other]
    ask(idle.url, f"flows/{other}", method="DELETE")


def test_runs_that_no_worker_takes_are_counted(prefect: Server) -> None:
    flow = ask(prefect.url, "flows/", {"name": "nobody-runs-me"})["id"]
    due = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    late = {"type": "SCHEDULED", "name": "Late", "state_details": {"scheduled_time": due}}
    ask(prefect.url, "flow_runs/", {"flow_id": flow, "state": late})
    try:
        status, found, fix = scheduler_service(prefect.url)
    finally:
        ask(prefect.url, f"flows/{flow}", method="DELETE")
    assert status == "warn"
    assert "late: no worker takes them" in found
    assert "prefect worker start" in fix


def test_a_server_that_ends_between_two_questions_is_not_called_broken() -> None:
    # Nobody listens at port 1.
    status, found, _ = scheduler_service("http://127.0.0.1:1/api")
    assert (status, found.startswith("not asked")) == ("warn", True)
