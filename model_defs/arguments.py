"""The values that a model's arguments may have: annotations of its builder, checked before it is built.

    def vit_micro(*, depth: Depth = 4, drop_path: Rate = 0.0, stem: Stem = "patch", ...) -> VisionTransformer:

`create_model` compares each argument with its annotation, so that a wrong one is one line with its name, and never an
error of torch or a model that computes nothing. Conditions on several arguments (a width that its heads divide) belong
to the constructor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from model_defs.errors import ArgumentError

_MOST_ITEMS = 16  # of a sequence: a net with more stages would need images of more than 65,536 pixels
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Bounds:
    """The values that a number may have: `least` to `most`, with `below` without `most` itself."""

    least: float
    most: float
    below: bool = False

    def hold(self, value: Any) -> bool:
        """Whether `value` is within them; NaN is not."""
        return bool(self.least <= value < self.most if self.below else self.least <= value <= self.most)

    def __str__(self) -> str:
        if self.below:
            return f"at least {self.least:,} and below {self.most:,}"
        return f"{self.least:,} to {self.most:,}"


Classes = Annotated[int, Bounds(0, 10_000_000)]
Channels = Annotated[int, Bounds(1, 65_536)]
Side = Annotated[int, Bounds(1, 65_536)]  # pixels
Stride = Annotated[int, Bounds(1, 16)]
Width = Annotated[int, Bounds(1, 65_536)]
Depth = Annotated[int, Bounds(1, 1_000)]
Heads = Annotated[int, Bounds(1, 1_024)]
Tokens = Annotated[int, Bounds(1, 1_000_000)]
Vocabulary = Annotated[int, Bounds(1, 10_000_000)]
TokenId = Annotated[int, Bounds(0, 10_000_000)]
Rate = Annotated[float, Bounds(0, 1, below=True)]
MlpRatio = Annotated[float, Bounds(0.01, 100)]
Epsilon = Annotated[float, Bounds(1e-12, 0.1)]


def check_arguments(model: str, builder: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Compares arguments with the annotations of the builder; parameters without one may have any value.

    Args:
        model: name of the model, for the message.
        arguments: the arguments by name; the builder accepts these names.
    Raises:
        ArgumentError: an argument has another type or is out of its bounds.
    """
    annotations = _annotations(builder)
    for name, value in arguments.items():
        for path, problem in _problems(name, value, annotations.get(name, Any)):
            raise ArgumentError(model, path, problem)


def _annotations(builder: Callable[..., Any]) -> dict[str, Any]:
    function = builder.__init__ if isinstance(builder, type) else builder  # type: ignore[misc]
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:  # a model registered by others may have annotations that only a type checker can read
        return {}


def _problems(path: str, value: Any, annotation: Any, bounds: Bounds | None = None) -> Iterator[tuple[str, str]]:
    """Path and description of each part of `value` that the annotation does not allow."""
    kind, members = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        found = next((extra for extra in members[1:] if isinstance(extra, Bounds)), None)
        yield from _problems(path, value, members[0], found)
    elif kind in (Union, UnionType):
        others = [member for member in members if member is not NoneType]
        if len(others) == 1 and not (value is None and NoneType in members):
            yield from _problems(path, value, others[0])
    elif kind is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in members):
            yield path, f"must be {' or '.join(map(str, members))}, not {_shown(value)}"
    elif kind is Sequence:
        yield from _sequence_problems(path, value, members[0])
    elif kind is Mapping:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            yield path, f"must be a mapping of names to values, not {_shown(value)}"
    elif annotation in _KINDS:
        types, described = _KINDS[annotation]
        if not isinstance(value, types) or isinstance(value, bool) is not (annotation is bool):
            yield path, f"must be {described}, not {_shown(value)}"
        elif bounds is not None and not bounds.hold(value):
            yield path, f"must be {bounds}, not {_shown(value)}"
        elif annotation is float and not math.isfinite(value):
            yield path, f"must be a finite number, not {_shown(value)}"


_KINDS: dict[Any, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a text"),
}


def _sequence_problems(path: str, value: Any, item_annotation: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        yield path, f"must be a list, not {_shown(value)}"
    elif not 1 <= len(value) <= _MOST_ITEMS:
        yield path, f"must have 1 to {_MOST_ITEMS} items, not {len(value):,}"
    else:
        for number, item in enumerate(value):
            yield from _problems(f"{path}.{number}", item, item_annotation)


def _shown(value: Any) -> str:
    """The value as Python writes it, on one line, shortened."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."
