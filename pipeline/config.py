"""Config: frozen pydantic models that refuse unknown keys and have one canonical form.

Equal configs have the same canonical JSON, from which artifact keys are computed. A field that cannot change a stage's
result (threads, progress, where to run) is declared with `unkeyed(...)`, which excludes it from the key; a field that
was added later with `added(...)`; a field that had another name with `renamed(...)`. No field has the name of a keyword
of JSON Schema, because Prefect removes such names from the schemas of its forms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails

from pipeline.errors import InputError, near_names

ConfigT = TypeVar("ConfigT", bound="Config")
_NUMBERS = (int, float, int | None, float | None)


class Config(BaseModel):
    """Base of every configuration: immutable, unknown keys refused, defaults validated, numbers finite, no booleans."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=False, allow_inf_nan=False
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Pydantic's schema, adapted to the form of Prefect 3.8.

        The form sorts fields by `position`. Without it they are in the order of the stored schema, in which PostgreSQL
        sorts names by their length.

        For `type: number`, the form uses an input with a step of 0.01: a learning rate of 0.003 cannot be entered, and
        the form cannot be submitted while any number is not a multiple of 0.01. A field without a type is entered as
        JSON. With the double negation, validators still accept the same values.
        """
        schema = handler(core_schema)
        for position, field in enumerate(handler.resolve_ref_schema(schema).get("properties", {}).values()):
            field["position"] = position
            if field.get("type") == "number":
                del field["type"]
                field["not"] = {"not": {"type": "number"}}
        return schema

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, values: Any) -> Any:
        """Pydantic accepts True as 1; `epochs: on` is a mistake."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and field.annotation in _NUMBERS:
                raise ValueError(f"{name} is a number, not {value}")
        return values

    def key_value(self, name: str) -> Any:
        """The value of a field in the artifact key; a config may override it to map equivalent values to one."""
        return getattr(self, name)


def unkeyed(default: Any, **kwargs: Any) -> Any:
    """A pydantic Field that is excluded from the artifact key, because it cannot change the result."""
    return Field(default, json_schema_extra={"keyed": False}, **kwargs)


def added(default: Any, **kwargs: Any) -> Any:
    """A pydantic Field added in a later version: at its default it is not in the key, so that older keys stay valid."""
    return Field(default, json_schema_extra={"keyed": "unless default"}, **kwargs)


def renamed(default: Any, was: str, **kwargs: Any) -> Any:
    """A pydantic Field that had another name: keys still use the old name; a config that sets it is refused."""
    return Field(default, json_schema_extra={"was": was}, **kwargs)


def is_keyed(field: FieldInfo) -> bool:
    """Whether the field is part of the artifact key."""
    return _extra(field).get("keyed") is not False


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, without spaces and without unkeyed fields; equal for equal values."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 20) -> str:
    """The first `length` hex digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def parse_config(config_type: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """Validates `values`; an error is one line with the path of the key and what is wrong.

    Raises:
        InputError: an unknown key (with the near ones), a missing key or a wrong value.
    """
    try:
        return config_type.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(config_type, error)}") from None


def committed_config(config_type: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """The config in an artifact's manifest, in which renamed fields have their old names.

    Raises:
        InputError: as `parse_config`.
    """
    names = {_extra(field).get("was"): name for name, field in config_type.model_fields.items()}
    return parse_config(config_type, {names.get(name, name): value for name, value in values.items()}, where)


def explain(config_type: type[BaseModel], error: ValidationError) -> str:
    """A validation error in one line: the path of each invalid key and the reason."""
    return "; ".join(_explain_one(config_type, detail) for detail in error.errors())


def _explain_one(config_type: type[BaseModel], detail: ErrorDetails) -> str:
    location = list(detail["loc"])
    keys, owner = _walk(config_type, location)
    path = ".".join(str(key) for key in keys)
    if detail["type"] == "extra_forbidden":
        _, owner = _walk(config_type, location[:-1])
        known = owner.model_fields if owner is not None else {}
        for name, field in known.items():
            if _extra(field).get("was") == location[-1]:
                return f"{path}: is now called {'.'.join([*map(str, keys[:-1]), name])}"
        parent = path.removesuffix(str(location[-1]))
        deeper = _deeper_keys(owner, str(location[-1]), parent) if owner is not None else iter(())
        if suggested := " or ".join(islice(dict.fromkeys(deeper), 3)):
            return f"unknown key {path!r}; did you mean {suggested}?"
        return f"unknown key {path!r}{near_names(str(location[-1]), known)}"
    if detail["type"] == "missing":
        return f"{path}: required"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    message = message.removeprefix("value error, ")
    given = detail["input"]
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{path}: {message}{shown}" if path else f"{message}{shown}"


def _walk(config_type: type[BaseModel], location: list[str | int]) -> tuple[list[str | int], type[BaseModel] | None]:
    """The keys of a location as written by the user, and the config class they lead to.

    Pydantic also puts the tag of a union's member into the location, which is not in the user's input.
    """
    keys: list[str | int] = []
    current: list[type[BaseModel]] = [config_type]
    for key in location:
        tagged = [model for model in current if _has_tag(model, key)] if len(current) > 1 else []
        if tagged:  # also where a member has a field of that name: the tag comes first
            current = tagged
            continue
        fields = [model.model_fields[str(key)] for model in current if str(key) in model.model_fields]
        keys.append(key)
        nested = [model for field in fields for model in _models_in(field.annotation)]
        current = nested or current
    return keys, current[0] if current else None


def _deeper_keys(model: type[BaseModel], name: str, prefix: str) -> Iterator[str]:
    """The fields of this name below the fields of a class, as dotted paths that begin with `prefix`."""
    for field_name, field in model.model_fields.items():
        for nested in _models_in(field.annotation):
            path = f"{prefix}{field_name}."
            if name in nested.model_fields:
                yield f"{path}{name}"
            else:
                yield from _deeper_keys(nested, name, path)


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    return any(field.default == tag for field in model.model_fields.values())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    models: list[type[BaseModel]] = []
    for argument in getattr(annotation, "__args__", ()):
        models.extend(_models_in(argument))
    return models


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        plain = {}
        for name, field in type(value).model_fields.items():
            extra = _extra(field)
            keyed = extra.get("keyed", True)
            if keyed is False or (keyed == "unless default" and getattr(value, name) == field.default):
                continue
            plain[str(extra.get("was", name))] = _plain(
                value.key_value(name) if isinstance(value, Config) else getattr(value, name)
            )
        return plain
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
