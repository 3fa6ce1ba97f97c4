"""The Prefect worker that Tutelage starts is stopped in the middle of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.prefect_api import ask
from infra.local.server import Server, free_port
from infra.local.servers import prefect_worker

FLOW = """
import time
from pathlib import Path
from prefect import flow

@flow
def slow():
    folder = Path("{folder}")
    (folder / "started").touch()
    try:
        time.sleep(600)
    finally:
        (folder / "stopping").touch()
        time.sleep(4)
        (folder / "saved").touch()
"""


@pytest.mark.servers
def test_its_runs_save_their_work_and_end_before_it(prefect: Server, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(FLOW.format(folder=tmp_path))
    ask(prefect.url, "work_pools/", {"name": "stopped", "type": "process"})
    flow = ask(prefect.url, "flows/", {"name": "slow"})["id"]
    body = {"name": "x", "flow_id": flow, "work_pool_name": "stopped", "entrypoint": "slow.py:slow"}
    deployment = ask(prefect.url, "deployments/", {**body, "path": str(tmp_path), "concurrency_limit": 2})["id"]
    env = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    with prefect_worker(tmp_path / "worker", prefect.url, "stopped", free_port(), env=env) as worker:
        run = create_run(prefect, deployment)
        until((tmp_path / "started").exists)
        with ThreadPoolExecutor() as threads:
            stopped = threads.submit(worker.stop)
            until((tmp_path / "stopping").exists)
            late = create_run(prefect, deployment)
            stopped.result()
    assert (tmp_path / "saved").exists()
    assert ask(prefect.url, f"flow_runs/{run}")["state"]["type"] == "CRASHED"
    assert ask(prefect.url, f"flow_runs/{late}")["state"]["type"] == "SCHEDULED", "left for the next worker"
    limit = ask(prefect.url, f"v2/concurrency_limits/deployment:{deployment}")
    assert limit["active_slots"] == 0


def create_run(prefect: Server, deployment: str) -> str:
    return str(ask(prefect.url, f"deployments/{deployment}/create_flow_run", {})["id"])


def until(holds: Callable[[], bool], within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not in {within_s} s"
        time.sleep(0.1)
