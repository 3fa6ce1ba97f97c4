"""Config: one meaning has one text, and a mistake is one line that says what would be right."""

import enum
import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from pipeline.config import Config, canonical_json, committed_config, digest, parse_config, renamed, unkeyed
from pipeline.errors import InputError
from pipeline.evaluation.config import EvaluationConfig


class Adam(Config):
    kind: Literal["adam"] = "adam"
    rate: float = Field(1e-3, gt=0, le=1, description="Learning rate.")


class Sgd(Config):
    kind: Literal["sgd"] = "sgd"
    sgd: int = Field(1, ge=0, description="Named as its kind.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum.")


class Training(Config):
    epochs: int = Field(3, ge=1, description="Epochs.")
    rate: float = Field(1.0, description="A number.")
    names: tuple[str, ...] = Field((), description="Words.")
    optimizer: Annotated[Adam | Sgd, Field(discriminator="kind")] = Field(Adam(), description="Which.")
    threads: int = unkeyed(2, ge=1, description="Cannot change the result.")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=6), st.randoms())
def test_the_order_of_keys_has_no_meaning(values, random):
    items = list(values.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(values)
    assert digest(dict(items)) == digest(values)


@given(PLAIN)
def test_the_canonical_text_is_json_of_the_same_value(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


def test_a_renamed_field_keeps_the_keys_of_its_artifacts():
    class Before(Config):
        required: bool = Field(False, description="As it was called.")

    class After(Config):
        mandatory: bool = renamed(False, was="required", description="As it is called.")

    assert digest(After(mandatory=True)) == digest(Before(required=True))
    with pytest.raises(InputError, match=r"^here: required: is now called mandatory$"):
        parse_config(After, {"required": True}, "here")
    committed = json.loads(canonical_json(After(mandatory=True)))
    assert committed_config(After, committed, "a manifest") == After(mandatory=True)


def test_the_config_of_a_committed_evaluation_is_read_back():
    config = EvaluationConfig(kept_examples=3, batch_size=8)
    assert committed_config(EvaluationConfig, json.loads(canonical_json(config)), "a manifest") == config


@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 99))
def test_unkeyed_fields_do_not_reach_the_key(epochs, one, other):
    assert digest(Training(epochs=epochs, threads=one)) == digest(Training(epochs=epochs, threads=other))
    assert digest(Training(epochs=epochs)) != digest(Training(epochs=epochs + 1))


def test_unkeyed_fields_stay_out_at_every_depth():
    class Outer(Config):
        inner: tuple[Training, ...] = Field((Training(),), description="Nested.")

    assert "threads" not in canonical_json({"deep": [Outer()]})


def test_what_means_the_same_has_one_text():
    assert digest(Training(rate=1)) == digest(Training(rate=1.0))
    assert digest(Training(names=["a"])) == digest(Training(names=("a",)))
    assert digest(Training()) == digest(Training(epochs=3, optimizer={"kind": "adam"}))
    assert canonical_json({"b", "a"}) == canonical_json(["a", "b"])


def test_words_paths_and_enums_have_a_stable_text():
    class Colour(enum.StrEnum):
        RED = "red"

    assert canonical_json([Colour.RED, Path("/a/b"), "é"]) == '["red","/a/b","é"]'


def test_a_number_that_is_none_has_no_text():
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError):
        Training().epochs = 4


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"epoch": 3}, "run.yaml: unknown key 'epoch'; did you mean epochs?"),
        ({"momentum": 3}, "run.yaml: unknown key 'momentum'; did you mean optimizer.momentum?"),
        ({"epochs": 0}, "run.yaml: epochs: input should be greater than or equal to 1 (got 0)"),
        ({"epochs": "many"}, "run.yaml: epochs: input should be a valid integer"),
        ({"optimizer": {"kind": "adam", "rat": 1}}, "unknown key 'optimizer.rat'; did you mean rate?"),
        ({"optimizer": {"kind": "sgd", "rate": 1}}, "unknown key 'optimizer.rate'"),
        ({"optimizer": {"kind": "sgd", "momentun": 1}}, "unknown key 'optimizer.momentun'; did you mean momentum?"),
        ({"optimizer": {"kind": "sgd", "sgd": -1}}, "run.yaml: optimizer.sgd: input should be greater"),
        ({"optimizer": {"kind": "adm"}}, "optimizer: input tag 'adm'"),
    ],
)
def test_a_mistake_is_one_line(values, line):
    with pytest.raises(InputError) as caught:
        parse_config(Training, values, "run.yaml")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_told_at_once():
    with pytest.raises(InputError, match=r"epochs: .*; unknown key 'thread'; did you mean threads"):
        parse_config(Training, {"epochs": 0, "thread": 1}, "--set")
