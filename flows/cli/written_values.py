"""YAML and JSON of configurations: bounded in size, without duplicate keys; unquoted scalars keep their text.

YAML reads `yes`, `no`, `on` and `1.10` as booleans and a number, also where a string is meant. Only the parameter
model knows where a string is required, so an unquoted scalar is stored as both (`Scalar`) until validation.

Different from YAML 1.1: 010, 1:30 and dates are strings, not an octal number, 90 and a date.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.errors import InputError, first_line

MAX_BYTES = 256 << 10  # limit on the size of a file of parameters
_MAX_DEPTH = 40
_MAX_NODES = 10_000  # including repetitions by anchors
_MAX_DIGITS = 40
_CORE = "tag:yaml.org,2002:"
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Scalar:
    """A value as YAML reads it, and its text as written."""

    text: str
    value: Any


def read_yaml(text: str, where: str) -> Any:
    """The mappings, lists, strings, None and `Scalar` of a YAML document; None for an empty one.

    Raises:
        InputError: it is not YAML, has a duplicate key, refers to itself, or is too deep or too large; the message
            begins with `where`.
    """
    try:
        _check_size(text, where)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {_reason(error)}") from None
    except (ValueError, OverflowError) as error:  # raised by PyYAML for "\UFFFFFFFF" and for a long number in %YAML
        raise InputError(f"{where}: not YAML: {first_line(error)}") from None
    return None if node is None else _NodeReader(where).value(node, 1)


def read_json(text: str, where: str) -> Any:
    """Like `read_yaml`, for a JSON document.

    Raises:
        InputError: as `read_yaml`.
    """

    def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise InputError(f"{where}: the key {key!r} occurs twice; remove one")
            values[key] = value
        return values

    def constant(name: str) -> Any:
        raise InputError(f"{where}: {name} is not a number in JSON; give a finite one")

    try:
        values = json.loads(
            text,
            object_pairs_hook=no_key_twice,
            parse_constant=constant,
            parse_int=lambda digits: _number(digits, where, int),
            parse_float=lambda digits: _number(digits, where, float),
        )
    except RecursionError:
        raise InputError(f"{where}: nested deeper than {_MAX_DEPTH} levels; flatten it") from None
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    for depth, value in _with_depth(values):
        if depth > _MAX_DEPTH:
            raise InputError(f"{where}: nested deeper than {_MAX_DEPTH} levels; flatten it")
        if isinstance(value, str):
            _check_text(value, where)
    return values


def plain_values(
    tree: Any, texts: frozenset[tuple[str | int, ...]] = frozenset(), path: tuple[str | int, ...] = ()
) -> Any:
    """Plain values: each `Scalar` becomes its text if its path is in `texts`, else its value."""
    if isinstance(tree, Scalar):
        return tree.text if path in texts else plain_values(tree.value, texts, path)
    if isinstance(tree, dict):
        return {key: plain_values(value, texts, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain_values(value, texts, (*path, number)) for number, value in enumerate(tree)]
    return tree


def scalar_path(tree: Any, location: tuple[str | int, ...]) -> tuple[str | int, ...] | None:
    """The path of the `Scalar` at a pydantic error location; None if there is another value.

    Elements of the location that are not in the document (the names of a union's members) are skipped.
    """
    path: tuple[str | int, ...] = ()
    for part in location:
        container = tree.value if isinstance(tree, Scalar) else tree
        is_element = (isinstance(container, dict) and part in container) or (
            isinstance(container, list) and isinstance(part, int) and part < len(container)
        )
        if is_element:
            tree, path = container[part], (*path, part)
    return path if isinstance(tree, Scalar) else None


class _NodeReader:
    """Converts YAML nodes to values; a node repeated by an anchor counts each time."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._left = _MAX_NODES

    def value(self, node: yaml.Node, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self._error(node, f"more than {_MAX_NODES:,} values, with repetitions by anchors; write less")
        if depth > _MAX_DEPTH:
            raise self._error(node, f"nested deeper than {_MAX_DEPTH} levels, or refers to itself; flatten it")
        tag = node.tag.removeprefix(_CORE)
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag.startswith(_CORE):
            try:
                return self._scalar(node, tag)
            except ValueError:
                raise self._error(node, f"{node.value[:40]!r} is not a valid !!{tag}; put a string in quotes") from None
        raise self._error(node, f"the tag {node.tag.replace(_CORE, '!!')} is not supported; remove it")

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode) or (key.tag == f"{_CORE}null" and not key.value):
                raise self._error(key, "a key must be a plain value, not empty, a list or a mapping")
            if key.tag == f"{_CORE}merge":
                inner = self.value(item, depth + 1)
                for mapping in inner if isinstance(inner, list) else [inner]:
                    if not isinstance(mapping, dict):
                        raise self._error(item, "<< takes a mapping")
                    merged = {**mapping, **merged}
                continue
            _check_text(key.value, self.where)
            if key.value in values:
                raise self._error(key, f"the key {key.value!r} occurs twice; remove one")
            values[key.value] = self.value(item, depth + 1)
        return {**merged, **values}

    def _scalar(self, node: yaml.ScalarNode, tag: str) -> Any:
        text: str = node.value
        _check_text(text, self.where)
        plain = text.lower()
        if tag == "null":
            return None
        if tag == "bool" and plain in yaml.SafeLoader.bool_values:
            value: Any = yaml.SafeLoader.bool_values[plain]
        elif tag == "int" and re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", text):
            return self._as_scalar(node, _number(text, self.where, int))
        elif tag == "int" and re.fullmatch(r"[-+]?0[xb][0-9a-f_]{1,40}", plain):
            value = int(plain, 0)
        elif tag == "float" and plain.lstrip("+-") in (".inf", ".nan"):
            value = float(plain.replace(".", ""))
        elif tag == "float" and ":" not in text:
            return self._as_scalar(node, _number(text, self.where, float))
        elif node.style is None or tag in ("str", "value", "merge"):
            return text
        else:
            raise self._error(node, f"{text[:40]!r} is not a valid !!{tag}")
        return self._as_scalar(node, Scalar(text, value))

    def _as_scalar(self, node: yaml.ScalarNode, scalar: Scalar) -> Any:
        """A quoted scalar with an explicit tag is its value; an unquoted one keeps its text."""
        return scalar if node.style is None else scalar.value

    def _error(self, node: yaml.Node, why: str) -> InputError:
        mark = node.start_mark
        return InputError(f"{self.where}: line {mark.line + 1}, column {mark.column + 1}: {why}")


def _check_size(text: str, where: str) -> None:
    """Checks size and depth from events first: PyYAML composes by recursion, 5,000 values a second."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if number > 2 * _MAX_NODES:
            raise InputError(f"{where}: more than {_MAX_NODES:,} values; write less")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark is not None else 1
            raise InputError(f"{where}: nested deeper than {_MAX_DEPTH} levels at line {line}; flatten it")


def _number(text: str, where: str, kind: type[int] | type[float]) -> Scalar:
    if len(text) > _MAX_DIGITS:
        raise InputError(f"{where}: {text[:12]}... is a number of {len(text):,} characters; give at most {_MAX_DIGITS}")
    value = kind(text.replace("_", ""))
    if not math.isfinite(value):
        raise InputError(f"{where}: {text} is too large for a number; give a smaller one")
    return Scalar(text, value)


def _check_text(text: str, where: str) -> None:
    if _UNWRITABLE.search(text):
        raise InputError(f"{where}: {text[:40]!r} contains a character that is not allowed in text; remove it")


def _with_depth(values: Any) -> Iterator[tuple[int, Any]]:
    """Every key and value, with its depth."""
    waiting = [(1, values)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        if isinstance(value, dict):
            waiting += [(depth + 1, item) for pair in value.items() for item in pair]
        elif isinstance(value, list):
            waiting += [(depth + 1, item) for item in value]


def _reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    return f"{problem} at line {mark.line + 1}, column {mark.column + 1}" if mark else str(problem)
