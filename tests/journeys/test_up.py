"""A fresh clone with the README's install: `tutelage up`, `tutelage deploy`, a run from Prefect's form, a champion."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.prefect_api import ask
from tests.journeys.browser import Browser, missing
from tests.readme_install import fresh_clone
from tests.small_photos import draw_photos

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

# A user's shell, with a store and keys of other servers in it; nothing of the development environment is on its PATH.
SHELL = {
    "HOME": os.environ.get("HOME", "/"),
    "PATH": os.pathsep.join(
        one for one in os.environ["PATH"].split(os.pathsep) if Path(one) != Path(sys.executable).parent
    ),
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "TUTELAGE_STORE": "/nowhere/a-store-of-the-shell",
    "AWS_SESSION_TOKEN": "of-other-keys",
    "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:1",
}
HEADING = "A night of red and blue"
# The pretrained models of the preset photos, for a minute.
SMALL = " ".join(
    f"--set {model}.{setting}" for model in ("teacher", "student") for setting in ("training.epochs=1", "image_size=64")
)
STRANGER = """
import sys
import mlflow
images = [open(name, "rb").read() for name in sys.argv[1:]]
print(*mlflow.pyfunc.load_model("models:/image-classifier@champion").predict(images)["label"])
print(*sorted(mlflow.MlflowClient().get_registered_model("image-classifier").aliases))
"""


@dataclass(frozen=True)
class Stack:
    """The servers of `tutelage up`, with our deployments.

    Attributes:
        programs: where the clone's `tutelage` and `python` are.
        environment: what its environment.sh exports.
        pictures: the folder `photos` in the clone, with red and blue pictures.
    """

    programs: Path
    environment: dict[str, str]
    pictures: Path

    @property
    def api(self) -> str:
        return self.environment["PREFECT_API_URL"]

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.api, f"deployments/name/{name}")
        return found

    @property
    def clone(self) -> Path:
        return self.programs.parents[1]

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the clone, as in a shell with its environment activated and environment.sh sourced."""
        # The clone's environment has no script of Prefect, see tests/readme_install.py.
        script = f'prefect() {{ python -m prefect "$@"; }}\n{command}'
        return subprocess.run(
            ["bash", "-ec", script],
            env={**SHELL, **self.environment, "PATH": f"{self.programs}{os.pathsep}{SHELL['PATH']}"},
            cwd=self.clone,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the clone as somebody who has sourced environment.sh."""
        return subprocess.run(
            [self.programs / command[0], *command[1:]],
            env={**SHELL, **self.environment, **env},
            cwd=self.pictures,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    # Not tmp_path, which PostgreSQL's own user cannot enter when pytest runs as root.
    folder = Path(tempfile.mkdtemp(prefix="tutelage-journey-"))
    folder.chmod(0o755)
    process = None
    try:
        programs = fresh_clone(folder / "clone")
        process = subprocess.Popen(
            [programs / "tutelage", "up", "--folder", folder / "up", "--free-ports"],
            env=SHELL,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        said = []
        while not (said and said[-1].startswith("Ctrl-C")):
            said.append(process.stdout.readline())
            assert said[-1], f"{''.join(said)}\n{process.communicate()[1]}"
        assert said[1].startswith("SeaweedFS  "), "the README's install brings no S3 server"
        exports = (folder / "up" / "environment.sh").read_text().splitlines()
        environment = dict(word.split("=", 1) for line in exports for word in shlex.split(line)[1:])
        stack = Stack(programs, environment, folder / "clone" / "photos")
        draw_photos(stack.pictures)
        # From a shell that has another store.
        deployed = stack.run("tutelage", "deploy", TUTELAGE_STORE=SHELL["TUTELAGE_STORE"])
        assert deployed.returncode == 0, deployed.stderr
        yield stack
    finally:
        if process is not None:
            process.terminate()
            process.communicate(timeout=150)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def by_the_clock(stack: Stack) -> str:
    """The id of a deployment that a cron starts each minute, from now on."""
    deployment = stack.deployment("shard-dataset/on-demand")["id"]
    data = {"source": {"kind": "image_folder", "folder": str(stack.pictures)}, "samples_per_shard": 7}
    schedule = {"schedule": {"cron": "* * * * *"}, "active": True, "parameters": {"parameters": {"data": data}}}
    ask(stack.api, f"deployments/{deployment}/schedules", [schedule])
    return str(deployment)


@pytest.fixture(scope="module")
def run_of_the_form(stack: Stack, by_the_clock: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a run of the preset photos, asked for in Prefect's form after an edit of its deployment there.

    Without a browser both are asked for by the requests that the form sends. Before, the deployment was given its
    parameters by the commands of docs/tutorial.md.
    """
    tutorial = (stack.clone / "docs" / "tutorial.md").read_text()
    (config,) = re.findall(r"^tutelage config .+ --json > nightly\.json$", tutorial, flags=re.MULTILINE)
    (command,) = re.findall(r"^prefect .+ deploy .+$", tutorial, flags=re.MULTILINE)
    given = stack.shell(f"{config.replace('--preset photos', f'--preset photos {SMALL}')}\n{command}")
    assert given.returncode == 0, given.stdout + given.stderr
    parameters = json.loads((stack.clone / "nightly.json").read_text())
    deployment = stack.deployment("lifecycle/nightly")
    assert deployment["parameters"] == {"parameters": parameters}
    assert [one["schedule"]["cron"] for one in deployment["schedules"]] == ["0 2 * * *"]
    nightly = deployment["id"]
    if missing():
        edited = {**parameters, "report": {"heading": HEADING}}
        ask(stack.api, f"deployments/{nightly}", {"parameters": {"parameters": edited}}, method="PATCH")
        return str(ask(stack.api, f"deployments/{nightly}/create_flow_run", {})["id"])
    page = f"{stack.api.removesuffix('/api')}/deployments/deployment/{nightly}"
    browser = Browser(tmp_path_factory.mktemp("browser"))
    try:
        browser.open(f"{page}/edit")
        browser.write("//label[contains(., 'Heading')]/ancestor::*[.//textarea][1]//textarea", HEADING)
        browser.click("//button[@type='submit'][contains(., 'Save')]")
        browser.until(lambda it: not it.address.endswith("/edit"), "the edit is saved")
        browser.open(f"{page}/run")
        browser.until(lambda it: "Heading" in it.text(), "the form has the parameters")
        browser.click("//button[@type='submit'][contains(., 'Submit')]")
        browser.until(lambda it: not it.address.endswith("/run"), "the run is asked for")
    finally:
        browser.close()
    runs = ask(stack.api, "flow_runs/filter", {"deployments": {"id": {"any_": [nightly]}}})
    (run,) = [run for run in runs if "auto-scheduled" not in run["tags"]]
    return str(run["id"])


def test_a_cron_of_each_minute_makes_a_run_that_the_worker_runs(
    stack: Stack, by_the_clock: str, run_of_the_form: str
) -> None:
    mine = {"deployments": {"id": {"any_": [by_the_clock]}}}
    done = {"tags": {"all_": ["auto-scheduled"]}, "state": {"type": {"any_": ["RUNNING", "COMPLETED"]}}}
    until(lambda: ask(stack.api, "flow_runs/count", {**mine, "flow_runs": done}) > 0, within_s=150)
    # One is enough: the others would take the time of the run that is being trained.
    ask(stack.api, f"deployments/{by_the_clock}", {"schedules": []}, method="PATCH")
    run = ask(stack.api, "flow_runs/filter", {**mine, "flow_runs": done, "sort": "EXPECTED_START_TIME_ASC"})[0]
    assert run["created_by"]["type"] == "SCHEDULE"
    assert ended(stack, run["id"])["type"] == "COMPLETED"


def test_the_form_edits_a_deployment_and_its_run_reaches_a_champion(stack: Stack, run_of_the_form: str) -> None:
    state = ended(stack, run_of_the_form)
    assert state["type"] == "COMPLETED", state
    asked = ask(stack.api, f"flow_runs/{run_of_the_form}")["parameters"]["parameters"]
    assert asked["report"]["heading"] == HEADING
    assert asked["teacher"]["training"]["epochs"] == 1
    images = [str(stack.pictures / label / "0.png") for label in ("red", "blue")]
    stranger = subprocess.run(
        [stack.programs / "python", "-I", "-c", STRANGER, *images],
        env={"PATH": "/usr/bin:/bin", "MLFLOW_TRACKING_URI": stack.environment["MLFLOW_TRACKING_URI"]},
        cwd=stack.pictures,
        capture_output=True,
        text=True,
        check=False,
    )
    assert stranger.returncode == 0, stranger.stderr
    assert stranger.stdout.splitlines() == ["red blue", "challenger champion"]
    listed = stack.run("tutelage", "artifacts", "list", "--json")
    stages = {one["artifact"].partition("/")[0] for one in json.loads(listed.stdout)}
    assert {
        "import-weights",
        "linear-probe",
        "check-leaks",
        "distill-student",
        "register-model",
        "run-report",
    } <= stages


def test_the_deployment_keeps_what_was_edited_in_the_form(stack: Stack, run_of_the_form: str) -> None:
    if missing():
        pytest.skip(f"no {missing()}: the edit and the run were asked for by the form's requests, not in the form")
    kept = stack.deployment("lifecycle/nightly")["parameters"]["parameters"]
    assert kept["report"]["heading"] == HEADING
    assert kept["teacher"]["model"]["pretrained"] == "DEFAULT"
    assert kept["data"]["base"] == "newest"


def test_the_doctor_finds_the_servers_and_their_scheduler_well(stack: Stack) -> None:
    answer = stack.run("tutelage", "doctor", "--json")
    found = {check["name"]: check for check in json.loads(answer.stdout)}
    assert {found[name]["status"] for name in ("store", "S3", "MLflow", "Prefect", "scheduler", "Ray")} == {"ok"}, found
    assert found["scheduler"]["found"].startswith("created a run")


def until(holds: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not in {within_s} s"
        time.sleep(0.5)


def ended(stack: Stack, run: str, within_s: float = 600) -> dict[str, Any]:
    """The state in which a flow run ended."""
    until(lambda: ask(stack.api, f"flow_runs/{run}")["state"]["type"] in ENDS, within_s)
    state: dict[str, Any] = ask(stack.api, f"flow_runs/{run}")["state"]
    return state


ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
