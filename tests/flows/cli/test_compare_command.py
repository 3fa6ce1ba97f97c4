"""`tutelage compare` on models that always give one answer, so that every number is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flows.cli.app import main
from flows.cli.compared import evaluations_of
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.report.config_differences import config_differences
from pipeline.stage import run_stage
from tests.one_answer import AnswerConfig, OneAnswer


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Artifact, Artifact]:
    """A model that always says red and one that always says blue; `photos` has 9 red and 3 blue pictures."""
    monkeypatch.setenv("TUTELAGE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    add_pictures(tmp_path / "photos", red=9, blue=3)
    return models_in_store()


def models_in_store() -> tuple[Artifact, Artifact]:
    red, blue = (
        run_stage(OneAnswer(), AnswerConfig(answer=answer), {}, store=ArtifactStore.open())
        for answer in ("red", "blue")
    )
    return red, blue


def add_pictures(folder: Path, **counts: int) -> None:
    for label, count in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            colour = (200, number, 0) if label == "red" else (0, number, 200)
            Image.new("RGB", (16, 16), colour).save(folder / label / f"{number}.png")


def evaluate(capsys: pytest.CaptureFixture[str], model: Artifact, data: str = "photos") -> dict[str, Any]:
    assert main(["evaluate", model.name, "--data", data, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_two_models_are_compared_on_the_same_images(
    models: tuple[Artifact, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red, blue = models
    evaluations = [evaluate(capsys, model)["evaluation"] for model in models]
    assert main(["compare", red.name, blue.name[:20], "--out", "page.html"]) == 0
    printed = capsys.readouterr().out
    # McNemar's exact test of 9 against 3: 2 * (1 + 12 + 66 + 220) / 2^12 = 0.146.
    sentence = "No difference can be shown: B is 50.0 points less accurate than A (difference \u221250.0, 95% interval"
    assert sentence in printed
    assert "p = 0.15, on 12 images)." in printed
    assert "only B is right: 3 images" in printed
    assert "blue/0.png" in printed
    assert printed.splitlines()[-1] == "page.html"
    page = (tmp_path / "page.html").read_text()
    assert sentence in page
    assert page.count('class="tile"') == 12
    assert page.count("data:image/") == 12
    assert main(["compare", *evaluations, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["common_images"] == 12
    assert found["tests"]["accuracy"]["p_value"] == pytest.approx(2 * (1 + 12 + 66 + 220) / 2**12)
    assert found["measures"][0]["name"] == "accuracy"
    assert (found["measures"][0]["a"], found["measures"][0]["b"]) == (0.75, 0.25)
    # Of 9 and 3 images; the effective number is 4 / (1/9 + 1/3) = 9. Wilson's interval of a half of 9 is 0.5 plus and
    # minus 1.96 sqrt(9 / 4 + 0.96) / 12.84 = 0.273.
    assert [line.split()[2:9] for line in printed.splitlines() if line.startswith("balanced")] == [
        ["50.0%", "(22.7%", "to", "77.3%)", "50.0%", "(22.7%", "to"]
    ]
    for measure in found["measures"]:
        for side in "ab":
            low, high = measure[f"{side}_interval"]
            assert 0 <= low < measure[side] < high <= 1
    assert found["configs"] == [{"key": "answer", "a": "red", "b": "blue"}]
    assert [one["group"] for one in found["differing"]] == ["only_b"] * 3 + ["only_a"] * 9
    assert found["a"]["cost"]["parameters"] == found["b"]["cost"]["parameters"] > 1000


def test_a_model_that_was_not_evaluated_there_gets_the_command(
    models: tuple[Artifact, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    red, blue = models
    assert main(["compare", red.name, blue.name]) == 2
    assert "was evaluated; run `tutelage evaluate" in capsys.readouterr().err
    data = evaluate(capsys, red)["data"]
    assert main(["compare", red.name, blue.name]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tutelage:")]
    assert f"`tutelage evaluate {blue.name} --data {data} --split all`" in line


def test_different_data_are_compared_on_the_common_images_or_refused(
    models: tuple[Artifact, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red, blue = models
    first = evaluate(capsys, red)["evaluation"]
    add_pictures(tmp_path / "photos", blue=5)
    second = evaluate(capsys, blue)["evaluation"]
    assert main(["compare", first, second]) == 0
    said = "on the 12 images that both have: A was evaluated on 12 images"
    assert said in capsys.readouterr().out
    add_pictures(tmp_path / "others", blue=1)
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "others" / "blue" / "0.png")
    third = evaluate(capsys, blue, "others")["evaluation"]
    assert main(["compare", first, third]) == 2
    assert "have no image in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ("RED", "RED", "are the same model"),
        ("RED", "evaluate/0000", "unknown artifact"),
        ("RED", "resnet50", "no model; give models:/NAME@ALIAS"),
        ("run-report/00", "RED", "unknown artifact"),
        ("RED", "models:/x", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
    ],
)
def test_a_wrong_argument_is_one_line(
    a: str, b: str, says: str, models: tuple[Artifact, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [models[0].name if name == "RED" else name for name in (a, b)]
    assert main(["compare", *names]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_page_that_cannot_be_written_is_refused_first(
    models: tuple[Artifact, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", models[0].name, models[1].name, "--out", "nowhere/page.html"]) == 2
    assert "--out nowhere/page.html: name an .html file in a folder that exists" in capsys.readouterr().err


def test_settings_of_inputs_are_compared_and_removed_ones_named(models: tuple[Artifact, Artifact]) -> None:
    class Student(OneAnswer):
        name = "distill-student"

    store = ArtifactStore.open()
    a, b = (run_stage(Student(), AnswerConfig(answer="green"), {"teacher": teacher}, store=store) for teacher in models)
    (found,) = config_differences(a.name, b.name, store)
    assert (found.key, found.a, found.b) == ("teacher.answer", "red", "blue")
    store.remove(models[1].name)
    (found,) = config_differences(a.name, b.name, store)
    assert (found.key, found.b) == ("teacher.artifact", f"{models[1].name} (removed)")


def test_a_run_that_promoted_no_model_is_compared_by_the_model_of_the_other(
    models: tuple[Artifact, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red, blue = (evaluate(capsys, model)["evaluation"] for model in models)
    promoted = commit("register-model", "0a", {"evaluation": red}, promoted=True)
    refused = [commit("register-model", key, {"evaluation": name}) for key, name in (("0b", blue), ("0c", red))]
    first = commit(
        "run-report",
        "0d",
        {"teacher-evaluation": red, "student-evaluation": blue, "teacher-registration": promoted},
    )
    second = commit(
        "run-report",
        "0e",
        {"teacher-evaluation": blue, "student-evaluation": red}
        | dict(zip(("classifier-registration", "teacher-registration"), refused, strict=True)),
    )
    assert [one.name for one in evaluations_of(first, second, ArtifactStore.open())] == [red, blue]
    report = f"{tmp_path}/.cache/fetched/artifacts/{second}/attempt-1/report.html"
    assert [one.name for one in evaluations_of(report, first, ArtifactStore.open())] == [blue, red]
    with pytest.raises(InputError, match="are the same evaluation"):
        evaluations_of(f"{first}:student", second, ArtifactStore.open())


def commit(stage: str, key: str, inputs: dict[str, str], **summary: Any) -> str:
    folder = ArtifactStore.open().local / "empty"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").touch()
    about: dict[str, Any] = {"config": {}, "seconds": 1.0, "origin": {"tutelage": "test"}}
    return ArtifactStore.open().commit(stage, key, folder, inputs=inputs, summary=summary, **about).name


@pytest.mark.servers
def test_evaluations_in_s3_are_compared_as_in_a_folder(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUTELAGE_STORE", s3_url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    add_pictures(tmp_path / "photos", red=9, blue=3)
    evaluations = [evaluate(capsys, model)["evaluation"] for model in models_in_store()]
    assert main(["compare", *(f"{s3_url}/artifacts/{name}" for name in evaluations), "--out", "page.html"]) == 0
    assert "p = 0.15, on 12 images)." in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().count("data:image/") == 12
