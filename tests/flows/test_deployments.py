"""prefect.yaml is in step with the code, and a worker runs what the UI's form asks for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.catalog import FLOWS
from flows.deployments import DEPLOYMENTS, ROOT, WORK_POOL, prefect_yaml
from flows.prefect_api import ask
from flows.presets import PRESETS
from infra.local.servers import Server


def test_prefect_yaml_is_in_step_with_the_code() -> None:
    fix = "write yaml.safe_dump(flows.deployments.prefect_yaml(), sort_keys=False) into prefect.yaml"
    assert yaml.safe_load((ROOT / "prefect.yaml").read_text()) == prefect_yaml(), fix


def test_every_flow_is_deployed_and_its_entrypoint_is_there() -> None:
    assert sorted(deployment.flow for deployment in DEPLOYMENTS) == sorted(FLOWS)
    for entry in FLOWS.values():
        file, _, function = entry.entrypoint.partition(":")
        assert f"def {function}(" in (ROOT / file).read_text()


def test_lifecycle_runs_every_night_and_one_at_a_time() -> None:
    nightly = next(one for one in DEPLOYMENTS if one.flow == "lifecycle").plain()
    assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC"}]
    assert nightly["concurrency_limit"]["limit"] == 1


@dataclass(frozen=True)
class Deployed:
    """A server with our deployments; a worker of their pool, and the store that its environment names."""

    server: Server
    worker: int
    store: Path

    def processes(self) -> list[str]:
        """Command lines of what the worker started and is still there."""
        found, mark = [], f"TUTELAGE_STORE={self.store}".encode()
        for place in Path("/proc").iterdir():
            if not place.name.isdecimal() or int(place.name) == self.worker:
                continue
            try:
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
            except OSError:
                continue
        return found


@pytest.fixture(scope="module")
def deployed(prefect: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The server with our deployments, and a worker of their pool."""
    folder = tmp_path_factory.mktemp("worker")
    env = {
        **os.environ,
        "PREFECT_API_URL": prefect.url,
        "PREFECT_HOME": str(folder / "prefect"),
        "TUTELAGE_STORE": str(folder / "store"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    command = Path(sys.executable).with_name("tutelage")
    deploy = subprocess.run([command, "deploy"], env=env, capture_output=True, text=True, check=False)
    assert deploy.returncode == 0, deploy.stderr
    assert "6 deployments" in deploy.stdout
    with (folder / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process"],
            env=env,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Deployed(prefect, worker.pid, folder / "store")
        finally:
            worker.terminate()
            worker.wait(30)


@pytest.mark.servers
def test_a_worker_runs_what_the_form_asks_for(deployed: Deployed, pictures: Path) -> None:
    # A shard size of its own: another test's run over these pictures must not leave this one a cached stage.
    parameters = {"data": {"source": {"kind": "image_folder", "folder": str(pictures)}, "samples_per_shard": 7}}
    server = deployed.server
    run = started(server, "shard-dataset", parameters)
    state = ended(server, run)
    assert state["type"] == "COMPLETED", state
    tasks = ask(server.url, "task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert [(task["name"], task["state"]["name"]) for task in tasks] == [("shard-dataset", "Completed")]
    artifacts = ask(server.url, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    assert {artifact["type"] for artifact in artifacts} >= {"table", "markdown"}


@pytest.mark.servers
def test_every_deployments_parameters_can_be_edited(deployed: Deployed) -> None:
    server = deployed.server
    for row in DEPLOYMENTS:
        deployment = ask(server.url, f"deployments/name/{row.flow}/{row.name}")["id"]
        edited = {"parameters": PRESETS["emoji-tiny"].parameters(row.flow).model_dump(mode="json")}
        assert ask(server.url, f"deployments/{deployment}", {"parameters": edited}, method="PATCH") is None
        assert ask(server.url, f"deployments/{deployment}")["parameters"] == edited
        ask(server.url, f"deployments/{deployment}", {"parameters": {}}, method="PATCH")


@pytest.mark.servers
@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"data": {"samples_per_shard": 0}}, "samples_per_shard"),
        ({"data": {"samples_per_shard": "many"}}, "samples_per_shard"),
        ({"data": {"samples_per_shart": 10}}, "samples_per_shart"),
        ({"date": {}}, "date"),
    ],
)
def test_a_wrong_parameter_is_refused_by_the_api(deployed: Deployed, parameters: dict[str, Any], names: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        started(deployed.server, "shard-dataset", parameters)
    assert refused.value.code == 409
    assert names in refused.value.read().decode()


@pytest.mark.servers
@pytest.mark.ray
def test_a_training_cancelled_in_the_ui_leaves_a_checkpoint_and_no_process(deployed: Deployed, pictures: Path) -> None:
    teacher = {
        "model": {"name": "vit_micro", "kwargs": {"width": 16, "depth": 1, "heads": 1}},
        "image_size": 16,
        "training": {"epochs": 100_000, "global_batch": 8},
    }
    data = {"source": {"kind": "image_folder", "folder": str(pictures)}}
    server = deployed.server
    run = started(server, "train-teacher", {"data": data, "teacher": teacher})
    until(lambda: has_trained(server, run), within_s=180)
    ask(server.url, f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert ended(server, run)["type"] == "CANCELLED"
    until(lambda: not deployed.processes(), within_s=60)
    assert list(deployed.store.glob("work/train-teacher/*/scratch/checkpoints/step-*.json"))


def has_trained(server: Server, run: str) -> bool:
    """Whether the run's log tells of a step; before the first one a stop leaves no checkpoint."""
    lines = ask(server.url, "logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
    return any(re.search(r"train-teacher: .*\b[1-9]\d*/\d+", line["message"]) for line in lines)


def until(holds: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not in {within_s} s"
        time.sleep(0.2)


def started(server: Server, flow: str, parameters: dict[str, Any]) -> str:
    """The id of a new flow run, asked for as the UI's form does."""
    deployment = ask(server.url, f"deployments/name/{flow}/on-demand")["id"]
    run = ask(server.url, f"deployments/{deployment}/create_flow_run", {"parameters": {"parameters": parameters}})
    return str(run["id"])


def ended(server: Server, flow_run_id: str, within_s: float = 120) -> dict[str, Any]:
    """The state in which a flow run ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        state: dict[str, Any] = ask(server.url, f"flow_runs/{flow_run_id}")["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return state
        time.sleep(0.5)
    raise TimeoutError(f"flow run {flow_run_id} did not end in {within_s} s")
