"""Presets, parameter models and their YAML: one type for form, file and shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import yaml
from jsonschema.validators import Draft202012Validator
from jsonschema_specifications import REGISTRY
from pydantic import BaseModel

from flows.catalog import FLOWS
from flows.cli.parameters_file import apply_settings, dump
from flows.cli.written_values import plain_values
from flows.parameters import RegisterModelParameters
from flows.presets import PRESETS
from pipeline.config import _models_in, parse_config
from pipeline.contrastive.stage import PretrainClip
from pipeline.distillation.stage import DistillStudent
from pipeline.errors import InputError
from pipeline.training.linear_probe.stage import LinearProbe
from pipeline.training.stage import TrainTeacher


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_survives_its_yaml(preset: str, flow: str) -> None:
    parameters = PRESETS[preset].parameters(flow)
    text = dump(parameters)
    again = parse_config(type(parameters), yaml.safe_load(text), "the printed YAML")
    assert again == parameters
    assert parse_config(type(parameters), parameters.model_dump(mode="json"), "JSON") == parameters


@pytest.mark.parametrize("preset", PRESETS)
def test_the_models_of_a_preset_can_be_built(preset: str) -> None:
    whole = PRESETS[preset].make()
    with torch.device("meta"):
        for config in (whole.teacher, whole.student):
            model = config.build_model(10).eval()
            images = torch.empty(2, config.channels, config.image_size, config.image_size)
            assert model(images).shape == (2, 10)


@pytest.mark.parametrize("flow", FLOWS)
def test_every_parameter_is_described(flow: str) -> None:
    bare = [place for place, field in fields(FLOWS[flow].parameter_model()) if not field.description]
    assert bare == []


@pytest.mark.parametrize("flow", FLOWS)
def test_numbers_are_bounded(flow: str) -> None:
    loose = []
    for place, field in fields(FLOWS[flow].parameter_model()):
        if field.annotation in (int, float) and not field.metadata:
            loose.append(place)
    assert loose == []


@pytest.mark.parametrize("flow", FLOWS)
def test_prefect_s_form_takes_any_number(flow: str) -> None:
    """Its input for `type: number` takes multiples of 0.01 only, and sends nothing while one of them is none."""
    schema = FLOWS[flow].parameter_model().model_json_schema()
    models = [schema, *schema.get("$defs", {}).values()]
    assert [
        name for one in models for name, field in one.get("properties", {}).items() if field.get("type") == "number"
    ] == []
    loader = (
        {"$defs": schema["$defs"], **schema["$defs"]["LoaderConfig"]} if "LoaderConfig" in schema["$defs"] else None
    )
    if loader is not None:
        validator = Draft202012Validator(loader)
        assert validator.is_valid({"max_damaged_share": 0.0015})
        for wrong in ("0.1", -0.1, True, None):
            assert not validator.is_valid({"max_damaged_share": wrong})


@pytest.mark.parametrize("flow", FLOWS)
def test_the_form_has_the_fields_in_their_order_whatever_the_database_does(flow: str) -> None:
    schema = FLOWS[flow].parameter_model().model_json_schema()
    for one in (schema, *schema.get("$defs", {}).values()):
        fields_of_one = one.get("properties", {})
        # PostgreSQL stores the keys of an object by length.
        stored = dict(sorted(fields_of_one.items(), key=lambda entry: len(entry[0])))
        assert sorted(stored, key=lambda name: stored[name]["position"]) == list(fields_of_one)


@pytest.mark.parametrize("flow", FLOWS)
def test_an_unknown_key_is_refused_at_any_depth(flow: str) -> None:
    values = PRESETS["emoji"].parameters(flow).model_dump(mode="json")
    with pytest.raises(InputError, match=r"unknown key 'data\.source\.colour'"):
        parse_config(FLOWS[flow].parameter_model(), apply_settings(values, ["data.source.colour=red"]), "here")


@pytest.mark.parametrize("flow", FLOWS)
def test_no_field_is_called_like_a_keyword_of_json_schema(flow: str) -> None:
    # Prefect takes `required` out of a schema at any depth before it checks a deployment's parameters, properties of
    # that name included, and they could not be edited: "Additional properties are not allowed". Others may come.
    keywords = {
        key
        for vocabulary in Draft202012Validator.META_SCHEMA["allOf"]
        for key in REGISTRY.contents(f"https://json-schema.org/draft/2020-12/{vocabulary['$ref']}")["properties"]
    }
    keywords |= {"definitions", "dependencies", "discriminator", "position", "block_type_slug"}
    assert keywords >= {"required", "properties", "type", "title", "format", "examples", "items", "$ref"}
    names = set(properties(FLOWS[flow].parameter_model().model_json_schema()))
    assert len(names) > 20
    assert names & keywords == set()


def properties(schema: Any) -> Iterator[str]:
    """The names of all properties, wherever in a schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for inner in schema.values():
            yield from properties(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from properties(inner)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("data.captions.required", "data.captions.mandatory"),
        ("data.images.format", "data.images.encoding"),
        ("evaluation.examples", "evaluation.kept_examples"),
        ("report.title", "report.heading"),
    ],
)
def test_a_name_of_before_is_refused_with_the_new_one(was: str, now: str) -> None:
    values = PRESETS["emoji"].parameters("lifecycle").model_dump(mode="json")
    with pytest.raises(InputError, match=f"^here: {was}: is now called {now}$"):
        parse_config(FLOWS["lifecycle"].parameter_model(), apply_settings(values, [f"{was}=1"]), "here")


def test_a_setting_changes_one_value_and_leaves_the_rest() -> None:
    values = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    changed = apply_settings(values, ["a.b=2.5", "a.c=[3]", "d.e=true", "d.f=x y"])
    assert plain_values(changed) == {"a": {"b": 2.5, "c": [3]}, "d": {"e": True, "f": "x y"}}
    assert values == {"a": {"b": 1, "c": [1, 2]}, "d": None}


def test_setting_a_kind_drops_what_belonged_to_the_other_kind() -> None:
    values = {"source": {"kind": "emoji", "size": 72}}
    changed = apply_settings(values, ["source.folder=photos", "source.kind=image-folder"])
    assert changed == {"source": {"kind": "image-folder", "folder": "photos"}}
    assert apply_settings(values, ["source.kind=emoji"]) == values


def test_printed_yaml_says_what_each_key_means() -> None:
    text = dump(PRESETS["emoji"].parameters("shard-dataset"))
    assert "samples_per_shard: 1000  # Maximum number of samples in a shard (one tar)." in text


def fields(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a model and of the models in it, but for the `kind` that tells them apart."""
    for name, field in model.model_fields.items():
        if name != "kind":
            yield f"{path}{name}", field
        for inner in _models_in(field.annotation):
            yield from fields(inner, f"{path}{name}.")


def test_every_model_that_a_lifecycle_evaluates_can_be_registered() -> None:
    extra: Any = RegisterModelParameters.model_fields["model"].json_schema_extra
    assert set(extra["stages"]) == {stage.name for stage in (LinearProbe, TrainTeacher, DistillStudent, PretrainClip)}
