"""`tutelage plan`: the stages of a run with their costs, before it; nothing is run or committed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli.app import main
from flows.cli.plan_command import _sentences, _totals
from flows.cli.plan_record import plan_note
from flows.stage_costs import StageCost
from flows.stage_task import StageResult
from pipeline.artifacts import ArtifactStore
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import TrainTeacher
from tests.pipeline.training.conftest import SMALL, write_digits


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.setenv("TUTELAGE_STORE", str(tmp_path / "store"))
    return ArtifactStore.open()


def test_a_plan_measures_trainings_and_a_cached_stage_costs_nothing(
    store: ArtifactStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = write_digits(store)
    file = tmp_path / "parameters.json"
    file.write_text(json.dumps({"shards": shards.name, "teacher": SMALL}))
    command = ["plan", "train-teacher", "--config", str(file), "--price-per-hour", "3600", "--json"]
    assert main(command) == 0
    plan = json.loads(capsys.readouterr().out)
    teacher, evaluation = plan["stages"]
    assert (teacher["label"], teacher["basis"]) == ("train-teacher", "20 steps on this machine")
    assert (evaluation["label"], evaluation["seconds"]) == ("evaluate", None)
    assert plan["seconds"] == pytest.approx(teacher["seconds"], abs=0.06) == pytest.approx(plan["price"], abs=0.06)
    assert plan["unknown"] == ["evaluate"]
    assert list(store.names("train-teacher")) == []

    # The run makes the artifact that was planned, and says what it took beside the plan.
    config = ClassificationConfig.model_validate(SMALL)
    artifact = run_stage(TrainTeacher(), config, {"shards": shards}, store=store)
    assert artifact.name == teacher["reference"]
    result = StageResult("train-teacher", artifact.name, False, 2 * teacher["seconds"], {})
    note = plan_note(store, result)
    assert note is not None
    assert note.endswith("(+100%)")
    kept = json.loads((store.local / "plans" / f"{artifact.name.replace('/', '-')}.json").read_text())
    assert kept["took_s"] == pytest.approx(2 * kept["seconds"], abs=0.1)

    assert main(command[:-1]) == 0
    printed = capsys.readouterr().out
    assert "cached" in printed
    assert "without 1 stage of unknown cost" in printed


def test_what_a_plan_cannot_know_is_said(capsys: pytest.CaptureFixture[str], store: ArtifactStore) -> None:
    assert main(["plan", "distill-student", "--preset", "emoji-tiny", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    by_label: dict[str, Any] = {stage["label"]: stage for stage in plan["stages"]}
    assert by_label["distill-student"]["basis"] == "needs shards, teacher: plan again when made"
    assert by_label["shard-dataset"]["basis"] == "no artifact of this stage to judge by"
    assert plan["seconds"] == 0


def test_a_plan_that_does_not_fit_says_so(store: ArtifactStore) -> None:
    store.local.mkdir(parents=True, exist_ok=True)
    costs = [
        StageCost("a", "a/0", "20 steps", 90.0, 10**9, 10**18),
        StageCost("b", "b/0", "cached", 0.0, 0, 0),
    ]
    lines = _sentences(costs, _totals(costs, 2.0), store)
    assert lines[0] == "in total 1:30, 1,000,000,000 MB of memory, 1,000,000,000.0 GB of disk, a price of 0.05"
    assert lines[1].startswith("too little memory: ")
    assert lines[2].startswith("too little disk: ")
    cached = [StageCost("b", "b/0", "cached", 0.0, 0, 0)]
    assert _sentences(cached, _totals(cached, None), store) == ["every stage is cached: the run costs nothing"]


def test_a_wrong_plan_is_refused_in_one_line(store: ArtifactStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "train-teacher", "--set", "teacher.training.steps=0"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
