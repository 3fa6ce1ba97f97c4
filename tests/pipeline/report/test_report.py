"""The report says what was measured, needs nothing from elsewhere, and survives any name and any gap."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.report.config import ReportConfig
from pipeline.report.gallery import Gallery
from pipeline.report.page import page
from pipeline.report.registered_models import registered_models_section
from pipeline.report.results import confusion_section, mistakes_section
from pipeline.report.run_data import read_run
from pipeline.report.stage import RunReport
from pipeline.report.summary import report_markdown, stage_rows
from pipeline.stage import run_stage

Inputs = dict[str, Artifact]
VOID = {"img", "meta", "br", "hr", "link", "col", "input"}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and gathers text, addresses and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            assert not name.startswith("on"), f"{tag} has the script attribute {name}"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def html(report_store: ArtifactStore, run_inputs: Inputs) -> str:
    artifact = run_stage(RunReport(), ReportConfig(heading="Night <1>"), run_inputs, store=report_store)
    return artifact.read("report.html").decode()


def test_report_is_whole_html_with_every_section(html: str) -> None:
    reader = read(html)
    sections = {
        "stages",
        "accuracy",
        "learning",
        "confusion",
        "mistakes",
        "seen",
        "curriculum",
        "retrieval",
        "data",
        "leaks",
        "lineage",
    }
    assert sections <= set(reader.ids)
    headings = re.findall("<h2>([^<]*)</h2>", html)
    assert headings == [
        "Stages",
        "Accuracy",
        "Learning",
        "Confusion matrix",
        "Suspected label errors",
        "Explanations",
        "Curriculum",
        "Retrieval",
        "Data",
        "Leaks",
        "Lineage",
    ]
    assert "Night <1>" in "".join(reader.texts)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_report_needs_nothing_from_elsewhere(html: str) -> None:
    reader = read(html)
    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(reader.tags)
    assert not re.search(r"@import|url\((?!#)|@font-face", html)
    assert len(reader.ids) == len(set(reader.ids)), "two elements share an id"
    targets = {address[1:] for address in reader.addresses if address.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert targets <= set(reader.ids)


def test_names_that_look_like_html_are_shown_and_not_obeyed(html: str) -> None:
    reader = read(html)
    assert "<script" not in html
    assert 'alert("x")' in "".join(reader.texts)
    assert "a|b\"c'd" in "".join(reader.texts)


def test_numbers_are_those_of_the_evaluation_with_their_floors(html: str, run_inputs: Inputs) -> None:
    metrics = json.loads(run_inputs["student-evaluation"].read("metrics.json"))
    text = " ".join(read(html).texts)
    committed = max(artifact.manifest["origin"]["committed"] for artifact in run_inputs.values())
    assert datetime.fromtimestamp(committed, UTC).strftime("Finished %Y-%m-%d %H:%M UTC. 11 artifacts, ") in text
    for name in ("top1", "chance", "majority", "top1_seen_concepts", "top1_unseen_concepts"):
        assert f"{metrics[f'accuracy/{name}']:.1%}" in text
    assert f"{metrics['accuracy/top1_low']:.1%} – {metrics['accuracy/top1_high']:.1%}" in text
    measured = json.loads(run_inputs["clip-evaluation"].read("metrics.json"))
    for name in ("image_retrieval_recall@5", "text_retrieval_recall@1", "image_retrieval_chance@5"):
        assert f"{measured[f'retrieval/{name}']:.1%}" in text


def test_the_link_to_suspected_label_errors_leads_somewhere(html: str, run_inputs: Inputs) -> None:
    assert html.count('href="#mistakes"') > 1  # also in the table of contents
    assert 'id="mistakes"' in html
    without = page(read_run(run_inputs), title="x", mistakes=0, explanations=0, queries=0)
    assert "#mistakes" not in without


def test_decisions_come_with_reason_and_lookup_line(html: str) -> None:
    text = "".join(read(html).texts)
    assert 'mlflow.pyfunc.load_model("models:/emoji-classifier@champion")' in text
    assert "better than version 2 (p = 0.003)" in text
    assert "not better than version 1 (p = 0.41)" in text
    assert "not promoted" in text


def test_a_student_replaced_by_its_teacher_in_the_same_run_is_not_shown_as_champion(
    run_inputs: Inputs, artifact_of: Callable[..., Artifact]
) -> None:
    shared = {"name": "pets", "promoted": True, "parameters": 1_610_000, "megabytes": 6.44, "latency_ms": 2.5}
    lookup = 'mlflow.pyfunc.load_model("models:/pets@champion")'
    student = {**shared, "version": 1, "champion": 1, "reason": "no champion yet", "lookup": lookup}
    teacher = {**shared, "version": 2, "champion": 2, "reason": "better than the champion", "lookup": lookup}
    student["tracking_uri"], teacher["tracking_uri"] = "sqlite:///mlflow.db", "http://127.0.0.1:5000"
    inputs = {
        **run_inputs,
        "classifier-registration": artifact_of("register-model", {}, student),
        "teacher-registration": artifact_of("register-model", {}, teacher),
    }
    html = str(registered_models_section(read_run(inputs), mistakes=True))
    text = "".join(read(html).texts)
    assert "pets version 1replaced by version 2" in text
    assert "pets version 2champion" in text
    assert "Better than the previous champion." in text
    assert text.count("models:/pets@champion") == 1
    assert "1.61M parameters, 6.4 MB, 2.5 ms per image" in text
    served = "http://127.0.0.1:5000/#/models/pets/versions/2?workflowType=machine_learning"
    assert html.count("href=") == 1
    assert f'href="{served}"' in html
    markdown = report_markdown(inputs, "x")
    assert "**pets version 1, replaced by version 2**: no champion yet" in markdown
    assert "**pets version 2, champion**: better than the champion" in markdown


def test_the_card_of_a_model_shows_the_notes_of_its_training(
    run_inputs: Inputs, artifact_of: Callable[..., Artifact]
) -> None:
    teacher = artifact_of("train-teacher", {}, {"notes": ["no later weights were better than the initial ones"]})
    registered = {"name": "pets", "version": 1, "promoted": True, "champion": 1, "reason": "no champion yet"}
    inputs = {
        **run_inputs,
        "teacher": teacher,
        "teacher-registration": artifact_of("register-model", {}, registered, model=teacher),
    }
    text = "".join(read(str(registered_models_section(read_run(inputs), mistakes=True))).texts)
    assert "No later weights were better than the initial ones." in text


def test_a_cached_registration_of_the_teacher_does_not_hide_a_newer_champion(
    run_inputs: Inputs, artifact_of: Callable[..., Artifact]
) -> None:
    teacher = {"name": "pets", "promoted": True, "version": 2, "champion": 2, "reason": "better than the champion"}
    student = {**teacher, "version": 3, "champion": 3}
    cached = artifact_of("register-model", {}, teacher)
    inputs = {**run_inputs, "teacher-registration": cached}
    inputs["classifier-registration"] = artifact_of("register-model", {}, student)
    markdown = report_markdown(inputs, "x")
    assert "**pets version 3, champion**" in markdown
    assert "**pets version 2, replaced by version 3**" in markdown


@pytest.mark.parametrize("champion", ["student", "teacher"])
def test_the_confusions_and_suspected_labels_of_the_champion_are_expanded(
    champion: str, run_inputs: Inputs, artifact_of: Callable[..., Artifact]
) -> None:
    # The student is registered first: not at all good, or as the champion of which the teacher is not better.
    student = {"name": "pets", "version": 1, "promoted": champion == "student", "champion": 1}
    last = 1 if champion == "student" else 2
    teacher = {"name": "pets", "version": 2, "promoted": champion == "teacher", "champion": last}
    inputs = {
        **run_inputs,
        "classifier-registration": artifact_of("register-model", {}, student, model=run_inputs["student"]),
        "teacher-registration": artifact_of("register-model", {}, teacher, model=run_inputs["teacher"]),
    }
    run = read_run(inputs)
    for section in (confusion_section(run), mistakes_section(run, Gallery(run.shards), 6)):
        assert re.findall("<h3>(.+?)</h3>", str(section)) == [champion.capitalize()]
    cards = "".join(read(str(registered_models_section(run, mistakes=True))).texts)
    assert ("pets version 1, student" in cards, "pets version 2, teacher" in cards) == (True, True)
    # The weak points of the champion are in its card, with the way to its suspected label errors.
    assert cards.count("The worst class is") == cards.count("The most confused pair: ") == 1
    assert (cards.index("The worst class is") < cards.index("pets version 2")) == (champion == "student")
    assert "Suspected label errors" in cards


def test_student_is_compared_with_its_teacher_on_the_same_images(html: str) -> None:
    # The two fixtures are one untrained model: they agree on every image.
    assert "+0.0 points on the same 12 images" in html
    assert "p = 1)" in html


def test_mistakes_and_galleries_show_pictures(html: str, run_inputs: Inputs) -> None:
    mistakes = json.loads(run_inputs["student-evaluation"].read("mistakes.json"))
    assert html.count("data:image/png;base64,") >= len(mistakes) + 6
    assert all(mistake["key"] in html for mistake in mistakes)


@pytest.mark.parametrize("absent", ["shards", "teacher", "student", "clip", "ontology", "clip-evaluation"])
def test_any_artifact_may_be_absent(report_store: ArtifactStore, run_inputs: Inputs, absent: str) -> None:
    inputs = {name: artifact for name, artifact in run_inputs.items() if name != absent}
    read(run_stage(RunReport(), ReportConfig(), inputs, store=report_store).read("report.html").decode())
    alone = {absent: run_inputs[absent]}
    read(run_stage(RunReport(), ReportConfig(), alone, store=report_store).read("report.html").decode())


def test_artifact_of_a_stage_unknown_here_is_listed(
    report_store: ArtifactStore, artifact_of: Callable[..., Artifact]
) -> None:
    inputs = {"pruned": artifact_of("prune-student", {}, {"accuracy": 0.25, "kept": 12})}
    text = run_stage(RunReport(), ReportConfig(), inputs, store=report_store).read("report.html").decode()
    assert "prune-student" in text
    assert "accuracy 25.0%" in text


def test_no_artifact_at_all_is_refused(report_store: ArtifactStore) -> None:
    with pytest.raises(InputError, match="no artifact to report on"):
        run_stage(RunReport(), ReportConfig(), {}, store=report_store)
    with pytest.raises(InputError, match="did you mean heading"):
        parse_config(ReportConfig, {"headding": "x"}, "report")


def test_data_without_concepts_are_described_in_their_own_words(run_inputs: Inputs) -> None:
    names = ("shards", "teacher", "clip")
    run = read_run({name: run_inputs[name] for name in names})
    text = page(run, title="Photos", mistakes=24, explanations=0, queries=10)
    assert "concept" not in "".join(read(text).texts)
    assert "24 images, 3 labels" in "".join(read(text).texts)


def test_same_run_gives_the_same_bytes(html: str, run_inputs: Inputs) -> None:
    again = page(read_run(run_inputs), title="Night <1>", mistakes=24, explanations=9, queries=10)
    assert again == html


def test_markdown_tells_the_same_in_few_words(run_inputs: Inputs) -> None:
    text = report_markdown(run_inputs, "Night")
    metrics = json.loads(run_inputs["student-evaluation"].read("metrics.json"))
    assert text.startswith("# Night\n")
    assert "**emoji-classifier version 3, champion**" in text
    assert f"{metrics['accuracy/top1']:.1%}" in text
    assert "<script" not in text.replace("\\<", "")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") >= 6 for line in tables)
    assert "recall@5" in text


def test_table_rows_name_every_artifact_in_the_order_of_the_run(run_inputs: Inputs) -> None:
    rows = stage_rows(run_inputs)
    assert [row["stage"] for row in rows[:4]] == ["shard-dataset", "check-leaks", "train-teacher", "evaluate"]
    assert len(rows) == len(run_inputs)
    assert rows[0]["headline"] == "24 images, 3 labels"
    assert rows[1]["headline"] == "9 exact, 0 pixels, 0 near of 15 evaluation images"
    assert stage_rows({}) == []


def test_the_baseline_stands_beside_the_teacher_which_is_compared_with_it(run_inputs: Inputs) -> None:
    inputs = {
        **run_inputs,
        "baseline": run_inputs["teacher"],
        "baseline-evaluation": run_inputs["teacher-evaluation"],
    }
    # The two fixtures are one model.
    sentence = "The teacher is not better than the linear probe on the same 12 images: +0.0 points (95% interval"
    text = page(read_run(inputs), title="Night", mistakes=1, explanations=0, queries=0)
    assert sentence in text
    assert "Baseline (linear probe): accuracy on 12 images" in text
    markdown = report_markdown(inputs)
    assert sentence in markdown.replace("\\", "")
    rows = [line.split("|")[1].strip() for line in markdown.splitlines() if line.startswith("|")]
    assert rows.count("baseline (linear probe)") == 4  # three accuracies and a stage
    assert rows.index("baseline (linear probe)") < rows.index("teacher")
