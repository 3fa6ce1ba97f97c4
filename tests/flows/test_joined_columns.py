"""Joined columns in the flows' parameters: what reads them is known before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from flows.catalog import FLOWS
from flows.cli.parameters_file import apply_settings, validated_model
from flows.joined_columns import JoinedInput, ontology_config_for
from flows.presets import PRESETS
from flows.stage_task import StageResult
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.ontology_config import OntologyConfig
from pipeline.errors import InputError
from pipeline.sharding.format.column_options import reads_columns

READERS = [
    ("train-teacher", "teacher.keep={quality: [0.5, null]}"),
    ("distill-student", "student.keep={quality: [0.5, null]}"),
    ("pretrain-clip", "clip.captions_from=caption"),
    ("register-model", "evaluation.captions_from=caption"),
    ("lifecycle", "clip.keep={quality: [null, 3]}"),
]


def parameters(flow: str, *settings: str) -> Any:
    values = PRESETS["emoji"].parameters(flow).model_dump(mode="json")
    return validated_model(FLOWS[flow].parameter_model(), apply_settings(values, settings), "here")


@pytest.mark.parametrize(("flow", "setting"), READERS)
def test_what_reads_columns_is_refused_without_them(flow: str, setting: str) -> None:
    part = setting.partition(".")[0]
    with pytest.raises(InputError, match=f"{part}: reads joined columns"):
        parameters(flow, setting)
    made = parameters(flow, setting, "columns.source=new.csv")
    assert reads_columns(getattr(made, part))


def test_a_run_of_a_preset_joins_nothing() -> None:
    for preset in PRESETS.values():
        assert preset.make().columns is None


def test_columns_are_an_input_of_what_reads_them_only() -> None:
    shards, made = (StageResult(name, f"{name}/0a1b", True, 0.0) for name in ("shard-dataset", "join-columns"))
    reading, other = ContrastiveConfig(captions_from="caption"), ContrastiveConfig()
    assert JoinedInput(made).added_to({"shards": shards}, reading) == {"shards": shards, "columns": made}
    for columns, config in ((JoinedInput(made), other), (JoinedInput(None), other)):
        assert columns.added_to({"shards": shards}, config) == {"shards": shards}


def test_the_ontology_is_made_of_what_is_trained_on() -> None:
    clip = ContrastiveConfig(captions_from="caption", keep={"quality": (0.5, None)})
    made = ontology_config_for(OntologyConfig(min_count=9), clip)
    assert (made.captions_from, made.keep, made.min_count) == ("caption", {"quality": (0.5, None)}, 9)
    with pytest.raises(InputError, match=r"ontology\.captions_from: set clip\.captions_from"):
        parameters("lifecycle", "ontology.captions_from=caption", "columns.source=new.csv")
