"""Parameters from the shell: a preset or a YAML file, changed by --set, validated together.

`read_file` reads what `dump` writes: the YAML of a preset gives the same parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from flows.catalog import FlowEntry, find_flow
from flows.cli.written_values import MAX_BYTES, Scalar, plain_values, read_json, read_yaml, scalar_path
from pipeline.config import Config, ConfigT, explain
from pipeline.errors import InputError

_WANTS_TEXT = ("string_type", "literal_error", "enum", "path_type")


def read_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, or in a file named *.json; its numbers, and the booleans of YAML, are `Written`.

    Raises:
        InputError: the file is missing, not YAML, or not a mapping.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise InputError(f"{path}: cannot be read ({reason}); give a YAML file, as `tutelage config` prints") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: longer than {MAX_BYTES >> 10} KiB; give a YAML file, as `tutelage config` prints")
    values = read_json(text, str(path)) if path.suffix.lower() == ".json" else read_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a mapping of keys to values; give one, as `tutelage config` prints")
    return values


def apply_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """`values` with each setting "a.b=value" applied; a value is YAML.

    Setting a different `kind` clears the other fields of that mapping, which the new kind would refuse.

    Raises:
        InputError: a setting does not have that form, or its path goes through a plain value.
    """
    changed = _copy(values)
    parsed = [_parse_setting(setting) for setting in settings]
    for path, value in sorted(parsed, key=lambda item: item[0][-1] != "kind"):
        mapping = changed
        for depth, key in enumerate(path[:-1], start=1):
            nested = mapping.setdefault(key, {})
            if isinstance(nested, Scalar):
                nested = mapping[key] = _copy(nested.value)
            if nested is None:
                nested = mapping[key] = {}
            if not isinstance(nested, dict):
                raise InputError(f"--set {'.'.join(path)}: {'.'.join(path[:depth])} is a value, it has no keys")
            mapping = nested
        if path[-1] == "kind" and _text(mapping.get("kind")) != _text(value):
            mapping.clear()
        mapping[path[-1]] = value
    return changed


def shell_parameters(
    entry: FlowEntry, preset: str | None, file: Path | None, settings: Iterable[str]
) -> tuple[Config, str]:
    """The parameters given on the command line, and the name of their origin, e.g. "preset emoji".

    If the file is a config of the lifecycle, the fields that `entry` does not have are dropped.

    Raises:
        InputError: they are invalid.
    """
    if preset is not None and file is not None:
        raise InputError("--preset and --config: give one of them")
    settings = list(settings)
    values = read_file(file) if file is not None else None
    if values is not None:
        values = _part_for(entry, values)
    from flows.presets import DEFAULT_PRESET, find_preset

    origin = str(file) if file is not None else f"preset {preset or DEFAULT_PRESET}"
    if values is None:
        values = find_preset(preset or DEFAULT_PRESET).parameters(entry.name).model_dump(mode="json")
    where = f"{origin} with --set" if settings else origin
    return validated_model(entry.parameter_model(), apply_settings(values, settings), where), origin


def _part_for(entry: FlowEntry, values: dict[str, Any]) -> dict[str, Any]:
    """The values without those that only the lifecycle has; unknown names stay, and fail validation."""
    lifecycle_fields = set(find_flow("lifecycle").parameter_model().model_fields)
    flow_fields = set(entry.parameter_model().model_fields)
    return {name: value for name, value in values.items() if name in flow_fields or name not in lifecycle_fields}


def validated_model(model: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """The model of these values; where it requires a string, the text as written is used: yes, on, 1.10.

    Raises:
        InputError: they are invalid.
    """
    texts: frozenset[tuple[str | int, ...]] = frozenset()
    while True:
        try:
            return model.model_validate(plain_values(values, texts))
        except ValidationError as error:
            wanted = (detail["loc"] for detail in error.errors() if detail["type"] in _WANTS_TEXT)
            more = frozenset(path for loc in wanted if (path := scalar_path(values, loc)) is not None) - texts
            if not more:
                raise InputError(f"{where}: {explain(model, error)}") from None
            texts |= more


def dump(parameters: Config) -> str:
    """The parameters as YAML; each key has its description as a comment."""
    return "\n".join(_lines(parameters, 0)) + "\n"


def _lines(config: BaseModel, depth: int) -> list[str]:
    lines = []
    indent = "  " * depth
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        notes = " ".join([*(field.description or "").split(), *_allowed(field.annotation)])
        comment = f"  # {notes}" if notes else ""
        if isinstance(value, BaseModel):
            lines.append(f"{indent}{name}:{comment}")
            nested = _lines(value, depth + 1)
            lines.extend(nested)
            if not nested:
                lines[-1] = f"{indent}{name}: {{}}{comment}"
        else:
            plain = config.model_dump(mode="json", include={name})[name]
            lines.append(f"{indent}{name}: {_flow_style(plain)}{comment}")
    return lines


def _allowed(annotation: Any) -> list[str]:
    """A sentence with the values of an enumerated field, or with the kinds of a field that has several."""
    members = [annotation, *get_args(annotation)]
    values = [value for member in members if get_origin(member) is Literal for value in get_args(member)]
    kinds = [
        member.model_fields["kind"].default
        for member in members
        if isinstance(member, type) and issubclass(member, BaseModel) and "kind" in member.model_fields
    ]
    if len(values) > 1:
        return [f"One of: {', '.join(map(str, values))}."]
    return [f"Kinds: {', '.join(map(str, kinds))}."] if len(kinds) > 1 else []


def _flow_style(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=2**31, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _parse_setting(setting: str) -> tuple[list[str], Any]:
    path, separator, text = setting.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise InputError(
            f"--set {setting}: write KEY=VALUE, with dots between nested keys, e.g. --set teacher.training.epochs=5"
        )
    where = f"--set {'.'.join(keys)}"
    if len(text) > MAX_BYTES:
        raise InputError(f"{where}: longer than {MAX_BYTES >> 10} KiB; put it into a file for --config")
    value = read_yaml(text, where)
    # A string such as {label} is a mapping in YAML.
    return keys, Scalar(text, value) if isinstance(value, dict | list) else value


def _text(value: Any) -> Any:
    return value.text if isinstance(value, Scalar) else value


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return value
