"""The section of explanations shows right and wrong predictions, and its cost is bounded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_defs import create_model
from pipeline.artifacts import Artifact
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing
from pipeline.report import explanations
from pipeline.report.explanations import chosen_ids, explanations_section
from pipeline.report.gallery import Gallery
from pipeline.report.run_data import read_run

Inputs = dict[str, Artifact]


def test_right_mixed_and_wrong_answers_take_turns() -> None:
    teacher = {id: id < 20 for id in range(30)}
    student = {id: id < 10 for id in range(30)}
    chosen = chosen_ids({"teacher": teacher, "student": student}, 6)
    assert [0 if id < 10 else 1 if id < 20 else 2 for id in chosen] == [0, 1, 2, 0, 1, 2]
    assert len(set(chosen)) == 6


def test_where_a_kind_is_rare_the_others_fill_its_place() -> None:
    chosen = chosen_ids({"teacher": {**dict.fromkeys(range(50), True), 50: False}}, 4)
    assert len(chosen) == 4
    assert 50 in chosen
    assert chosen_ids({"teacher": {}}, 4) == []
    assert sorted(chosen_ids({"teacher": {1: True, 2: False}}, 9)) == [1, 2]


def test_samples_that_one_model_was_not_asked_about_are_left_out() -> None:
    assert chosen_ids({"teacher": {1: True, 2: True}, "student": {2: False, 3: True}}, 5) == [2]


def test_both_models_are_shown_on_the_same_pictures_with_their_own_answers(run_inputs: Inputs) -> None:
    run = read_run(run_inputs)
    section = explanations_section(run, Gallery(run.shards), 5)
    assert section is not None
    assert section.count('class="card"') == 5
    assert section.count("<img") == 5 * 3
    assert section.count("data:image/") == 5 * 3
    outcomes = [evaluation.outcomes for evaluation in run.evaluations if evaluation.subject != "clip"]
    shown = chosen_ids(dict(zip(("teacher", "student"), outcomes, strict=True)), 5)
    right = sum(of_model[id] for of_model in outcomes for id in shown)
    # Besides the true label of each card, an answer is green if the evaluation says that it was right.
    assert len(re.findall('class="true"', section)) == 5 + right
    assert "<script>" not in section


@pytest.mark.parametrize("missing", ["shards", "teacher-evaluation student-evaluation", "teacher student"])
def test_without_pictures_models_or_evaluations_there_is_no_section(missing: str, run_inputs: Inputs) -> None:
    run = read_run({name: artifact for name, artifact in run_inputs.items() if name not in missing.split()})
    assert explanations_section(run, Gallery(run.shards), 5) is None


def test_none_are_drawn_if_none_are_asked_for(run_inputs: Inputs) -> None:
    run = read_run(run_inputs)
    assert explanations_section(run, Gallery(run.shards), 0) is None


def test_occlusion_of_a_large_net_is_too_dear_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kwargs = {"num_classes": 2, "in_chans": 3, "img_size": 64}
    exported = ExportedModel.write(
        tmp_path / "model", create_model("resnet_small", **kwargs), kind="classifier", architecture="resnet_small",
        kwargs=kwargs, preprocessing=Preprocessing(64, 3, (0.5,) * 3, (0.25,) * 3), labels=("a", "b"),
    )  # fmt: skip
    assert explanations._affordable(exported, 9) == "occlusion"  # its last map has 2 x 2 places
    monkeypatch.setattr(explanations, "_MAX_MACS", 1e9)
    assert explanations._affordable(exported, 9) == "grad-cam"
