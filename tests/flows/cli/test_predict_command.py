"""`tutelage predict` and `zero-shot` on models that are not registered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from flows.cli.app import main
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.stage import run_stage
from tests.one_answer import AnswerConfig, OneAnswer


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """A model that always says green, in a folder with one picture."""
    monkeypatch.setenv("TUTELAGE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 30), (200, 0, 0)).save("a.png")
    return run_stage(OneAnswer(), AnswerConfig(answer="green"), {}, store=ArtifactStore.open())


def test_an_artifact_and_its_copy_answer_as_a_registered_version(
    model: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["artifacts", "get", model.name, "--out", "copy"]) == 0
    capsys.readouterr()
    answers = []
    for reference in (model.name[:-4], "copy"):
        assert main(["predict", reference, "a.png", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    (answer,) = answers[0]
    assert (answer["image"], answer["label"]) == ("a.png", "green")
    assert answer["top_k"][0]["label"] == "green"
    assert sum(one["score"] for one in answer["top_k"]) == pytest.approx(1)
    assert answers[1] == answers[0]


def test_a_pointer_of_git_lfs_is_named_with_its_remedy(model: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert main(["predict", model.name, "b.png"]) == 2
    assert "b.png: not an image that is read: it is a Git LFS pointer" in capsys.readouterr().err


def test_zero_shot_looks_for_image_and_model_before_it_asks_for_prompts(
    model: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: str) -> str:
        assert main(["zero-shot", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "b.png: cannot be read" in error(model.name, "b.png")
    assert "unknown artifact 'train-teacher/00'" in error("train-teacher/00", "a.png")
    assert "no prompts; give --prompt TEXT at least twice" in error(model.name, "a.png")
    assert "a classifier, which ranks no prompts" in error(model.name, "a.png", "--prompt", "a", "--prompt", "b")


def test_a_report_is_refused_with_the_models_of_its_run(model: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    store = ArtifactStore.open()
    inputs = {"evaluation": "evaluate/0a", "teacher": model.name}
    folder = store.local / "report"
    folder.mkdir(parents=True)
    (folder / "report.html").touch()
    for stage in ("run-report", "check-leaks"):
        store.commit(stage, "0b", folder, config={}, inputs=inputs, summary={}, seconds=1.0, origin={})
        folder.mkdir(exist_ok=True)
        (folder / "report.html").touch()
    assert main(["predict", "run-report/0b", "a.png"]) == 2
    assert f"is the report of a run; give one of its models: {model.name}" in capsys.readouterr().err
    assert main(["predict", "check-leaks/0b", "a.png"]) == 2
    assert "is an artifact of check-leaks, which has no model" in capsys.readouterr().err
