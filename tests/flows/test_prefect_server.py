"""The embedded Prefect server: drained before it is stopped, and honest about what was killed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.prefect_api import ask
from flows.prefect_server import EmbeddedPrefect, check_server, port_wanted, prefect_for_a_run
from infra.local.server import free_port

QUICK_TASKS = """
import sys
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

@task(cache_policy=NO_CACHE)
def quick(number):
    return number

@flow
def fifty():
    import prefect.runtime
    for number in range(50):
        quick(number)
    print(prefect.runtime.flow_run.id)
    if "die" in sys.argv:
        import os, signal
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

fifty()
"""


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.setenv("PREFECT_HOME", "")
    return tmp_path / "services"


def run_fifty(*arguments: str) -> str:
    """Fifty quick task runs in a process of their own; the flow run's id."""
    answer = subprocess.run(
        [sys.executable, "-c", QUICK_TASKS, *arguments], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip().splitlines()[-1]


@pytest.mark.servers
def test_every_task_run_is_recorded_and_a_killed_run_is_not_shown_as_running(
    services: Path, prefect_home: Callable[[Path], Path]
) -> None:
    prefect_home(services / "prefect")
    with prefect_for_a_run(services) as server:
        assert server is not None
        server.wait()
        assert os.environ["PREFECT_API_URL"] == server.server.url
        killed = run_fifty("die")
        assert state_of(server, killed) == "RUNNING"
        finished = run_fifty()
        assert server.drain(finished, 50)
    assert "PREFECT_API_URL" not in os.environ
    with sqlite3.connect(services / "prefect" / "prefect.db") as database:
        query = "select state_type, count(*) from task_run where flow_run_id = ? group by 1"
        assert database.execute(query, [finished]).fetchall() == [("COMPLETED", 50)]

    with prefect_for_a_run(services) as server:
        assert server is not None
        server.wait()
        assert state_of(server, killed) == "CRASHED"
        assert state_of(server, finished) == "COMPLETED"


def test_a_server_that_is_gone_costs_the_record_of_a_run_and_not_the_run(
    services: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with prefect_for_a_run(services) as server:
        assert server is not None
        server.stop()
        assert not server.drain("0a", task_runs=1)
    assert "flow run 0a: its end may not be recorded" in caplog.text


def test_two_commands_at_once_have_homes_of_their_own(services: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = EmbeddedPrefect(services / "prefect", None)
    try:
        second = EmbeddedPrefect(services / "prefect", None)
        second.stop()
        assert (first.home.name, second.home.name) == ("prefect", "prefect-2")
    finally:
        first.stop()
    third = EmbeddedPrefect(services / "prefect", None)
    third.stop()
    assert third.home.name == "prefect"


def test_a_server_that_is_named_is_used(services: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with prefect_for_a_run(services) as server:
        assert server is None
    assert not services.exists()


def test_the_wanted_port_is_checked(services: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert port_wanted() is None
    port = free_port()
    monkeypatch.setenv("TUTELAGE_PREFECT_PORT", str(port))
    assert port_wanted() == port
    check_server()


def state_of(server: EmbeddedPrefect, flow_run: str) -> str:
    return str(ask(server.server.url, f"flow_runs/{flow_run}")["state"]["type"])
