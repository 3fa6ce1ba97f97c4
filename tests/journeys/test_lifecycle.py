"""One command takes real images to two registered champions; the second time there is nothing to do."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows.prefect_api import ask
from infra.local.servers import Server

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

STAGES = [
    "shard-dataset",
    "train-teacher",
    "distill-student",
    "evaluate teacher",
    "evaluate student",
    "register student",
    "build-ontology",
    "pretrain-clip",
    "evaluate clip",
    "register clip",
    "run-report",
]

STRANGER = """
import sys

OURS = {"flows", "pipeline", "model_defs", "infra", "instant_clip_tokenizer", "ray", "prefect"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OURS:
            raise ImportError(name + " is not on a stranger's machine")

sys.meta_path.insert(0, Refuse())
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
image = open(sys.argv[2], "rb").read()
classes = mlflow.pyfunc.load_model("models:/emoji-classifier@champion").predict([image, image])
prompts = {"prompts": ["a cat", "an apple"]}
texts = mlflow.pyfunc.load_model("models:/emoji-clip@champion").predict([image], params=prompts)
print(list(classes["label"]), list(texts["label"]))
"""


def test_every_stage_was_made_and_has_a_headline(lifecycle: Any) -> None:
    assert lifecycle.said["ok"]
    assert lifecycle.states() == dict.fromkeys(STAGES, "done")
    assert all(stage["headline"] and stage["artifact"] for stage in lifecycle.said["stages"])


def test_progress_is_plain_lines_where_there_is_no_terminal(lifecycle: Any) -> None:
    assert "\x1b" not in lifecycle.progress
    assert re.search(r"Prefect: http://127\.0\.0\.1:\d+", lifecycle.progress)
    assert re.search(r"pretrain-clip: .*\d+/\d+, loss \d", lifecycle.progress)


def test_prefect_recorded_every_task_run(lifecycle: Any) -> None:
    assert task_states(lifecycle.shell.store, lifecycle.said["flow_run"]) == Counter({"Completed": len(STAGES)})


def test_the_report_is_one_file_that_needs_no_other(lifecycle: Any) -> None:
    text = Path(lifecycle.said["report"]).read_text()
    assert not re.findall(r"""(?:src|href)=["']https?://[^"']+\.(?:js|css|png|svg)["']""", text)
    for words in ("emoji-classifier", "emoji-clip", "data:image/"):
        assert words in text


def test_a_stranger_loads_both_champions_without_pickle(lifecycle: Any, tmp_path: Path) -> None:
    image = a_picture(lifecycle.shell.store, tmp_path)
    uri = lifecycle.said["models"][0]["tracking_uri"]
    answer = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, uri, image],
        env={"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "DO_NOT_TRACK": "true", "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "a cat" in answer.stdout or "an apple" in answer.stdout


def test_the_shell_predicts_and_ranks_prompts(lifecycle: Any, tmp_path: Path) -> None:
    image = str(a_picture(lifecycle.shell.store, tmp_path))
    labels = lifecycle.shell.run("predict", "models:/emoji-classifier@champion", image, "--json")
    assert labels.returncode == 0, labels.stderr
    assert json.loads(labels.stdout)[0]["label"]
    prompts = ["--prompt", "a cat", "--prompt", "an apple"]
    ranked = lifecycle.shell.run("zero-shot", "models:/emoji-clip@champion", image, *prompts, "--json")
    assert ranked.returncode == 0, ranked.stderr
    assert {one["label"] for one in json.loads(ranked.stdout)[0]["ranking"]} == {"a cat", "an apple"}
    missing = lifecycle.shell.run("predict", "models:/emoji-classifyer@champion", image)
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1


def test_the_second_run_finds_every_stage_cached(lifecycle: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answer = lifecycle.shell.run("run", "lifecycle", "--preset", "emoji-tiny", "--json")
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert {stage["stage"]: stage["state"] for stage in said["stages"]} == dict.fromkeys(STAGES, "cached")
    assert [model["version"] for model in said["models"]] == [1, 1]
    assert said["report"] == lifecycle.said["report"]
    assert task_states(lifecycle.shell.store, said["flow_run"]) == Counter({"Cached": len(STAGES)})
    with capsys.disabled():
        print(f"\n  the second lifecycle took {said['seconds']} s")


@pytest.mark.parametrize("flow", ["distill-student", "pretrain-clip", "register-model"])
def test_a_flow_of_its_own_finds_what_the_lifecycle_made(lifecycle: Any, flow: str, prefect: Server) -> None:
    answer = lifecycle.shell.run("run", flow, "--preset", "emoji-tiny", "--json", PREFECT_API_URL=prefect.url)
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert ask(prefect.url, f"flow_runs/{said['flow_run']}")["state"]["type"] == "COMPLETED"
    stages = said["stages"]
    made = {stage["artifact"] for stage in lifecycle.said["stages"]}
    assert {stage["artifact"] for stage in stages if stage["stage"] != "run-report"} <= made
    assert {stage["state"] for stage in stages if stage["stage"] != "run-report"} == {"cached"}


def test_nothing_runs_on_after_the_commands(lifecycle: Any) -> None:
    assert lifecycle.shell.processes() == []


def test_artifacts_are_listed_shown_and_whole(lifecycle: Any) -> None:
    listed = json.loads(lifecycle.shell.run("artifacts", "list", "--json").stdout)
    assert {one["artifact"] for one in listed} >= {stage["artifact"] for stage in lifecycle.said["stages"]}
    shown = json.loads(lifecycle.shell.run("artifacts", "show", listed[0]["artifact"][:-8], "--json").stdout)
    assert set(shown) >= {"url", "config", "inputs", "files", "summary", "origin"}
    verified = lifecycle.shell.run("artifacts", "verify")
    assert verified.returncode == 0
    assert "all as committed" in verified.stdout


def task_states(store: Path, flow_run: str) -> Counter[str]:
    """Names of the states of a flow run's task runs in the embedded server's database."""
    with sqlite3.connect(f"file:{store}/services/prefect/prefect.db?mode=ro", uri=True) as database:
        rows = database.execute("select state_name from task_run where flow_run_id = ?", [flow_run])
        return Counter(name for (name,) in rows)


def a_picture(store: Path, folder: Path) -> Path:
    """One encoded image of the first shard."""
    import tarfile

    shard = sorted(store.glob("artifacts/shard-dataset/*/shards/test-*.tar"))[0]
    with tarfile.open(shard) as tar:
        member = next(one for one in tar if one.name.endswith((".png", ".webp", ".jpg")))
        content = tar.extractfile(member)
        assert content is not None
        picture = folder / Path(member.name).name
        picture.write_bytes(content.read())
    return picture
