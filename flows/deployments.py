"""The deployments, as data: which flow runs when, and how many at once. prefect.yaml has the same entries.

To run your own data on a schedule, set the parameter data.base=newest: a run without new data writes nothing.

`tutelage deploy` creates them on the server that PREFECT_API_URL names; `prefect deploy --all` in a clone
does the same. A worker of the pool runs them: `prefect worker start --pool tutelage`.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.catalog import FLOWS
from pipeline.errors import InputError, WorkError

WORK_POOL = "tutelage"
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Deployment:
    """One deployment of a flow.

    Attributes:
        flow: name of the flow.
        name: name of the deployment; Prefect shows FLOW/NAME.
        cron: schedule in UTC; None: only on demand.
        limit: maximum number of concurrent runs; further ones wait. None: no limit.
    """

    flow: str
    name: str = "on-demand"
    cron: str | None = None
    limit: int | None = None

    def plain(self) -> dict[str, Any]:
        """The deployment as an entry of prefect.yaml."""
        entry = FLOWS[self.flow]
        plain: dict[str, Any] = {
            "name": self.name,
            "description": entry.summary,
            "entrypoint": entry.entrypoint,
            "tags": ["tutelage"],
            "parameters": {},
            "work_pool": {"name": WORK_POOL},
            "schedules": [{"cron": self.cron, "timezone": "UTC"}] if self.cron else [],
        }
        if self.limit is not None:
            plain["concurrency_limit"] = {"limit": self.limit, "collision_strategy": "ENQUEUE"}
        return plain


DEPLOYMENTS = (
    Deployment("shard-dataset"),
    Deployment("train-teacher"),
    Deployment("distill-student"),
    Deployment("pretrain-clip"),
    Deployment("register-model", limit=1),
    # 02:00 UTC is night in Europe and evening in America; a nightly run waits for the previous one.
    Deployment("lifecycle", name="nightly", cron="0 2 * * *", limit=1),
)


def prefect_yaml() -> dict[str, Any]:
    """The content of prefect.yaml. Without a pull step, Prefect runs a flow in the folder it was deployed from."""
    return {"name": "tutelage", "deployments": [deployment.plain() for deployment in DEPLOYMENTS]}


def apply() -> int:
    """Creates the work pool and the deployments, or updates them.

    Raises:
        InputError: there is no prefect.yaml; this is not a clone.
        WorkError: a prefect command failed.
    """
    if not (ROOT / "prefect.yaml").is_file():
        raise InputError(f"deploy: no prefect.yaml in {ROOT}; run it from a clone of Tutelage, installed with pip -e")
    _prefect("work-pool", "create", WORK_POOL, "--type", "process", "--overwrite")
    _prefect("deploy", "--all")
    print(
        f"{len(DEPLOYMENTS)} deployments; `tutelage up` starts a worker that runs them; "
        f"elsewhere start one: prefect worker start --pool {WORK_POOL}"
    )
    return 0


def _prefect(*arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        lines = (answer.stdout + answer.stderr).strip().splitlines() or ["no output"]
        raise WorkError(f"prefect {' '.join(arguments)}: {lines[-1].strip()}")
