"""`tutelage replay`: a step of a training that ended or failed, again, with the same bits; the store stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.cli.app import main
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.stage import run_stage, stage_key
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.logged_rows import compare_entries
from pipeline.training.nonfinite import NonFiniteError
from pipeline.training.stage import TrainTeacher
from tests.pipeline.training.conftest import SMALL, write_digits

# Each step multiplies the weights by about -3,200, so that they overflow within a few.
DIVERGING: dict[str, Any] = {
    "optimizer": {"kind": "sgd", "lr": 100.0, "weight_decay": 1.0},
    "lr_reference_batch": 1,
    "clip_norm": None,
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.setenv("TUTELAGE_STORE", str(tmp_path / "store"))
    return ArtifactStore.open()


@pytest.fixture
def digits(store: ArtifactStore) -> Artifact:
    return write_digits(store)


def config(*, runner: dict[str, Any] | None = None, **training: Any) -> ClassificationConfig:
    values = {**SMALL, "training": {**SMALL["training"], **training}, "runner": {**SMALL["runner"], **(runner or {})}}
    return ClassificationConfig.model_validate(values)


def files_of(store: ArtifactStore) -> dict[str, tuple[int, int]]:
    """Size and time of change of every artifact's file, committed or not; caches are no artifacts."""
    files = [path for name in ("artifacts", "work") for path in (store.local / name).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def replayed(artifact_name: str, step: int, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["replay", artifact_name, str(step), "--json"]) == code
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_a_step_of_a_finished_training_computes_what_was_logged(
    store: ArtifactStore, digits: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = run_stage(TrainTeacher(), config(log_every_steps=1), {"shards": digits}, store=store)
    row = next(row for row in map(json.loads, artifact.read("metrics.jsonl").splitlines()) if row["step"] == 12)
    before = files_of(store)
    report = replayed(artifact.name, 11, capsys)
    assert report["gradient_norm"] == row["train/gradient_norm"]
    assert report["learning_rate"] == row["lr"]
    assert report["loss"] == pytest.approx(row["train/loss"], rel=1e-12)
    assert [(entry["step"], entry["equal"]) for entry in report["entries"]] == [(step, True) for step in range(1, 13)]
    assert "train/loss" in report["entries"][-1]["values"]
    assert len(set(report["ids"])) == 32
    assert sum(norm**2 for norm in report["layers"].values()) == pytest.approx(report["gradient_norm"] ** 2, rel=1e-4)
    assert report["finite"]
    assert files_of(store) == before

    assert main(["replay", artifact.name, "11"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{artifact.name}: repeats 12 steps from the start")
    assert "after step 11: equal" in printed.out
    assert "log entries" in printed.out


def test_a_replay_goes_on_to_the_next_log_entry(
    store: ArtifactStore, digits: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = run_stage(TrainTeacher(), config(log_every_steps=7), {"shards": digits}, store=store)
    for step, entries in ((3, [7]), (8, [7, 14]), (23, [7, 14, 21, 24])):
        report = replayed(artifact.name, step, capsys)
        assert [(entry["step"], entry["equal"]) for entry in report["entries"]] == [(entry, True) for entry in entries]
        assert all(len(set(map(str, pair))) == 1 for entry in report["entries"] for pair in entry["values"].values())


def test_a_step_that_ended_a_training_is_explained_from_its_last_checkpoint(
    store: ArtifactStore, digits: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    diverging = config(**DIVERGING, checkpoint_every_steps=2, log_every_steps=1)
    with pytest.raises(NonFiniteError) as failed:
        run_stage(TrainTeacher(), diverging, {"shards": digits}, store=store)
    step = failed.value.step
    assert step > 0
    name = f"train-teacher/{stage_key(TrainTeacher(), diverging, {'shards': digits})}"
    before = files_of(store)
    report = replayed(name, step, capsys)
    assert report["from_step"] == step - step % 2
    assert not report["finite"]
    assert report["weights_finite"]
    assert report["first_nonfinite"] is not None
    assert report["saved_batches"] == ["equal"]
    assert files_of(store) == before

    assert main(["replay", name, str(step)]) == 0
    printed = capsys.readouterr().out
    assert f"first in the output of {report['first_nonfinite']}" in printed
    # The step before was finite, and its log entry is in the checkpoint.
    earlier = replayed(name, step - step % 2 - 1, capsys)
    assert earlier["finite"]
    assert [entry["equal"] for entry in earlier["entries"]][-1:] == [True]


def test_a_saved_batch_that_is_another_one_is_found(
    store: ArtifactStore, digits: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    diverging = config(**DIVERGING)
    with pytest.raises(NonFiniteError) as failed:
        run_stage(TrainTeacher(), diverging, {"shards": digits}, store=store)
    name = f"train-teacher/{stage_key(TrainTeacher(), diverging, {'shards': digits})}"
    (file,) = (store.work / name / "scratch/checkpoints/bad_batches").iterdir()
    saved = torch.load(file, weights_only=True)
    torch.save({**saved, "labels": saved["labels"] + 1}, file)
    assert replayed(name, failed.value.step, capsys, code=1)["saved_batches"] == ["labels"]


def test_a_skipped_step_of_a_finished_training_has_its_batch(
    store: ArtifactStore, digits: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    skipping = config(**DIVERGING, on_nonfinite="skip", max_skipped_steps=30)
    artifact = run_stage(TrainTeacher(), skipping, {"shards": digits}, store=store)
    name = next(name for name in sorted(artifact.files) if name.startswith("bad_batches/"))
    step = int(name.split("-")[1])
    report = replayed(artifact.name, step, capsys)
    assert report["saved_batches"] == ["equal"]
    assert not report["finite"]


@pytest.mark.ray
def test_a_step_of_two_workers_is_replayed_by_two(
    store: ArtifactStore, digits: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    on_ray = config(runner={"runner": "ray", "workers": 2, "use_gpu": "no"}, steps=8, log_every_steps=4)
    artifact = run_stage(TrainTeacher(), on_ray, {"shards": digits}, store=store)
    report = replayed(artifact.name, 5, capsys)
    assert [(entry["step"], entry["equal"]) for entry in report["entries"]] == [(4, True), (8, True)]
    assert len(set(report["ids"])) == 32


def test_wrong_arguments_are_refused_in_one_line(
    store: ArtifactStore, digits: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = run_stage(TrainTeacher(), config(steps=4), {"shards": digits}, store=store)
    unfinished = config(**DIVERGING)
    with pytest.raises(NonFiniteError):
        run_stage(TrainTeacher(), unfinished, {"shards": digits}, store=store)
    name = f"train-teacher/{stage_key(TrainTeacher(), unfinished, {'shards': digits})}"
    for arguments, words in (
        ([artifact.name, "4"], "has 4 steps, numbered from 0 to 3; there is no step 4"),
        ([name, "24"], "there is no step 24: the training ends with step 23"),
        ([digits.name, "0"], "is no training; name an artifact of train-teacher"),
        (["train-teacher/ffff", "0"], "unknown training 'train-teacher/ffff'"),
        (["train-teacher/", "0"], "unknown training"),
        ([artifact.name, "-1"], "-1"),
        ([artifact.name, "three"], "should be a valid integer"),
        ([artifact.name], "STEP"),
    ):
        capsys.readouterr()
        assert main(["replay", *arguments]) == 2
        printed = capsys.readouterr().err.strip().splitlines()
        assert words in printed[-1]
        assert len([line for line in printed if not line.startswith(name)]) == 1


def test_a_log_entry_of_other_bits_differs() -> None:
    logged = [{"step": 2, "lr": 0.1, "train/gradient_norm": 3.0, "train/loss": 1.0}, {"step": 2, "val/loss": 9.0}]
    (same,) = compare_entries(logged, [{**logged[0], "train/images_per_s": 5.0}], 0)
    assert same["equal"]
    assert set(same["values"]) == {"lr", "train/gradient_norm", "train/loss"}
    (differs,) = compare_entries(logged, [{**logged[0], "train/gradient_norm": 3.0000002}], 0)
    assert not differs["equal"]
    # From a checkpoint within the steps of the entry, the mean is not known.
    (partial,) = compare_entries(logged, [logged[0]], 1)
    assert set(partial["values"]) == {"lr", "train/gradient_norm"}
