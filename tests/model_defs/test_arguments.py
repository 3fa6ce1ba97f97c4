"""Every argument of every registered model has bounds; a value outside them is one line with the argument's name."""

from __future__ import annotations

import contextlib
import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model_defs import ArgumentError, ModelError, ModelInfo, create_model, list_models, register_model, registry
from model_defs.arguments import Bounds

MODELS = list_models()
NAN, INFINITE = float("nan"), float("inf")
# Wrong for any argument of this kind, whatever its bounds.
WRONG: dict[Any, tuple[Any, ...]] = {
    int: ("four", "4", 2.5, 4.0, True, [4], {}, NAN, -1, 10**9),
    float: ("0.1", True, [0.1], {}, NAN, INFINITE, -INFINITE, -0.1, 1000.0),
    bool: ("yes", 1, 0, 0.0, []),
    str: (3, 2.5, True, ["base"], {}),
    Literal: ("nonsense", 0, 3.5, True, [], {}),
    Sequence: ("8,16", 8, {}, [], [8, "16"], [8, -1], [0], [2.5], [True], [None], [10**9], [8] * 17),
    Mapping: ("depth", 3, [("depth", 1)], {1: 2}),
}
# Quickly built on the meta device, with arguments of every kind.
QUICK = ("vit_micro", "deit_micro_distilled", "vit", "resnet_small", "densenet_small", "text_transformer", "bert")
MAY_BE_ZERO = ("num_classes", "end_of_text", "dropout", "drop_path")


def arguments_of(name: str) -> dict[str, Any]:
    """The annotations of the arguments that a user can give, by their names."""
    entry = registry._models[name]
    builder = entry.load()
    hints = get_type_hints(builder, include_extras=True)
    return {key: hints[key] for key in inspect.signature(builder).parameters if key not in entry.fixed}


def kind_of(annotation: Any) -> tuple[Any, Any, bool]:
    """The key of WRONG, the annotation of a number (or of an item) with its bounds, and whether it may be None."""
    optional = NoneType in get_args(annotation)
    if optional:
        (annotation,) = (member for member in get_args(annotation) if member is not NoneType)
    origin = get_origin(annotation)
    if origin is Annotated:
        return get_args(annotation)[0], annotation, optional
    return origin or annotation, get_args(annotation)[0] if origin is Sequence else annotation, optional


def refused(name: str, argument: str, value: Any) -> str:
    """The line with which `create_model` refuses the value."""
    with pytest.raises(ArgumentError) as caught:
        create_model(name, **{argument: value})
    line = str(caught.value)
    assert caught.value.argument.split(".")[0] == argument
    assert line.startswith(f"model {name!r}: {argument}")
    assert len(line.splitlines()) == 1
    return line


@pytest.mark.parametrize("name", MODELS)
def test_wrong_types_and_values_are_refused_for_each_argument_of_each_model(name: str) -> None:
    for argument, annotation in arguments_of(name).items():
        kind, number, optional = kind_of(annotation)
        if kind in (int, float, Sequence):
            assert any(isinstance(extra, Bounds) for extra in number.__metadata__), argument
        wrong = [*WRONG[kind], *(() if optional else (None,))]
        if kind in (int, float) and argument not in MAY_BE_ZERO:
            wrong.append(0)
        if argument in ("dropout", "drop_path"):
            wrong += [1, 1.0, 1.5]
        for value in wrong:
            refused(name, argument, value)


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_argument_of_any_model_is_refused_with_the_near_ones(name: str) -> None:
    known = next(iter(arguments_of(name)))
    assert f"{known}x: no such argument; did you mean {known}" in refused(name, f"{known}x", 1)


def test_messages_name_item_bounds_and_value() -> None:
    assert refused("vit_micro", "depth", 0) == "model 'vit_micro': depth: must be 1 to 1,000, not 0"
    assert refused("vit_micro", "drop_path", 1.5).endswith("drop_path: must be at least 0 and below 1, not 1.5")
    assert refused("resnet_small", "widths", [8, "16"]).endswith("widths.1: must be a whole number, not '16'")
    assert refused("resnet_small", "stem_stride", 3).endswith("stem_stride: must be 2 or 4, not 3")
    assert refused("resnet_small", "depths", []).endswith("depths: must have 1 to 16 items, not 0")
    assert refused("googlenet", "auxiliary", "no").endswith("auxiliary: must be true or false, not 'no'")
    assert len(refused("vit_micro", "depth", "x\n" * 10_000)) < 200


def test_arguments_of_a_dual_encoder_s_backbones_are_named_with_their_mapping() -> None:
    with pytest.raises(ArgumentError, match=r"model 'vit_micro': image_kwargs\.depth: must be 1 to 1,000, not 0"):
        create_model("clip", image_tower="vit_micro", image_kwargs={"depth": 0})
    with pytest.raises(ArgumentError, match=r"model 'bert': text_kwargs\.dept: no such argument; did you mean depth"):
        create_model("clip", image_tower="vit_micro", text_tower="bert", text_kwargs={"dept": 1})


def small(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that the annotation allows, small enough to build quickly."""
    kind, number, optional = kind_of(annotation)
    if kind is Literal:
        values: st.SearchStrategy[Any] = st.sampled_from(get_args(number))
    elif kind is bool:
        values = st.booleans()
    elif kind is str:
        values = st.sampled_from(["tiny", "small"])
    else:
        (bounds,) = (extra for extra in number.__metadata__ if isinstance(extra, Bounds))
        if kind is float:
            values = st.floats(bounds.least, min(bounds.most, 8), exclude_max=True)
        else:
            values = st.integers(int(bounds.least), min(int(bounds.most), 40))
        if kind is Sequence:
            values = st.lists(st.integers(int(bounds.least), 6), min_size=1, max_size=4)
    return st.one_of(st.none(), values) if optional else values


@pytest.mark.parametrize(
    "name",
    [
        "vit_micro",
        "deit_micro_distilled",
        "vit",
        "resnet_small",
        "densenet_small",
        "text_transformer",
        "bert",
        "lenet5",
    ],
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_values_within_bounds_build_or_are_refused_together(name: str, data: st.DataObject) -> None:
    """What torch makes of a value is not tried out one by one: nothing but a ModelError may come."""
    strategies = {key: small(annotation) for key, annotation in arguments_of(name).items()}
    arguments = data.draw(st.fixed_dictionaries({}, optional=strategies))
    with torch.device("meta"), contextlib.suppress(ModelError):
        assert isinstance(create_model(name, **arguments), nn.Module)


def own(monkeypatch: pytest.MonkeyPatch, builder: Callable[..., nn.Module], **fixed: Any) -> None:
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    register_model(ModelInfo("own", "text", 2026, "none"), builder, **fixed)


def test_a_model_of_others_is_checked_by_the_annotations_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*, width: int, rate: float = 0.5, other=None) -> nn.Module:  # type: ignore[no-untyped-def]
        return nn.Linear(width, 1)

    own(monkeypatch, build)
    assert isinstance(create_model("own", width=3, other=object()), nn.Linear)
    with pytest.raises(ArgumentError, match="'own': width: must be a whole number, not '3'"):
        create_model("own", width="3")
    with pytest.raises(ArgumentError, match="'own': rate: must be a finite number, not nan"):
        create_model("own", width=3, rate=NAN)
    with pytest.raises(ArgumentError, match="'own': width: has no default; give it"):
        create_model("own")
    with pytest.raises(ArgumentError, match="'own': name: no such argument"):
        create_model("own", width=3, name="x")


def test_annotations_that_only_a_type_checker_can_read_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*, width: NotImported) -> nn.Module:  # type: ignore[name-defined]  # noqa: F821
        return nn.Linear(int(width), 1)

    own(monkeypatch, build)
    assert isinstance(create_model("own", width="3"), nn.Linear)


def test_the_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(ArgumentError("vit_micro", "depth", "must be 1 to 1,000, not 0")))
    assert (error.model, error.argument, str(error)) == (
        "vit_micro", "depth", "model 'vit_micro': depth: must be 1 to 1,000, not 0",
    )  # fmt: skip
