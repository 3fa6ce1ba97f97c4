"""Concurrency slots of the Prefect server that Tutelage starts."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from flows.prefect_api import ask
from infra.local.server import free_port
from infra.local.servers import Server, prefect_server

# The shortest that Prefect allows.
LEASE = {
    "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "30",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "1",
}


def nightly(home: Path) -> Server:
    server = prefect_server(home, free_port())
    server.env = {**server.env, **LEASE}
    return server


def starts(server: Server, deployment: str) -> bool:
    """Whether a new run of the deployment gets a slot."""
    run = ask(server.url, f"deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    answer: dict[str, Any] = ask(server.url, f"flow_runs/{run['id']}/set_state", {"state": {"type": "PENDING"}})
    return bool(answer["status"] == "ACCEPT")


@pytest.mark.journey
def test_a_run_lost_with_its_server_does_not_hold_its_slot_for_ever(tmp_path: Path) -> None:
    """As after a power loss: neither the server nor the run can say that the run has ended."""
    with nightly(tmp_path) as server:
        flow = ask(server.url, "flows/", {"name": "lifecycle"})["id"]
        body = {"name": "nightly", "flow_id": flow, "concurrency_limit": 1}
        deployment = ask(server.url, "deployments/", body)["id"]
        assert starts(server, deployment)
        assert not starts(server, deployment)
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGKILL)
    with nightly(tmp_path) as server:
        deadline = time.monotonic() + 120
        while not starts(server, deployment):
            assert time.monotonic() < deadline, "the lost run still holds the only slot"
            time.sleep(2)
