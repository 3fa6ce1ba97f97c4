"""Config: frozen pydantic models that refuse unknown keys and have one canonical form.

Two configs that mean the same give the same canonical JSON, which is what artifact keys are made
from. A field that cannot change a stage's result (threads, progress, where to run) is declared
with `unkeyed(...)` and stays out of it; one that came later, with `added(...)`; one that had another name, with
`renamed(...)`. No field is called like a keyword of JSON Schema: Prefect takes such names out of its forms' schemas.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
        """The schema of pydantic, in which a number says so in a way that Prefect's form does not see.

        For `type: number` the form of Prefect 3.8 has an input whose step is 0.01: a learning rate of 0.003 cannot be
        entered, and the form sends nothing while any number in it is no multiple of 0.01. A field without a type is
        entered as JSON there. The double negation keeps what validators refuse the same.
        """
        schema = handler(core_schema)
        for field in handler.resolve_ref_schema(schema).get("properties", {}).values():
            if field.get("type") == "number":
                del field["type"]
                field["not"] = {"not": {"type": "number"}}
        return schema

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, values: Any) -> Any:
        """Pydantic takes True for 1; `epochs: on` is a mistake."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and field.annotation in _NUMBERS:
                raise ValueError(f"{name} is a number, not {value}")
        return values


def unkeyed(default: Any, **kwargs: Any) -> Any:
    """A pydantic Field that is left out of the artifact key, because it cannot change the result."""
    return Field(default, json_schema_extra={"keyed": False}, **kwargs)


def added(default: Any, **kwargs: Any) -> Any:
    """A pydantic Field that came later: left out of the artifact key at its default, so that older keys still hold."""
    return Field(default, json_schema_extra={"keyed": "unless default"}, **kwargs)


def renamed(default: Any, was: str, **kwargs: Any) -> Any:
    """A pydantic Field that had another name: keys are still made of that one, and its use is an error with the new."""
    return Field(default, json_schema_extra={"was": was}, **kwargs)


def is_keyed(field: FieldInfo) -> bool:
    """Whether another value of the field makes another artifact."""
    return _extra(field).get("keyed") is not False


def canonical_json(value: Any) -> str:
    """One text for one meaning: keys sorted, no spaces, unkeyed fields left out."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 20) -> str:
    """The first `length` hex digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def parse_config(config_type: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """Validates `values`; a mistake becomes one line that names the place and what would be right.

    Raises:
        InputError: an unknown key (with the near ones), a missing key or a wrong value.
    """
    try:
        return config_type.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(config_type, error)}") from None


def committed_config(config_type: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """The config that an artifact's manifest holds, where fields have the names that its key is made of.

    Raises:
        InputError: as `parse_config`.
    """
    names = {_extra(field).get("was"): name for name, field in config_type.model_fields.items()}
    return parse_config(config_type, {names.get(name, name): value for name, value in values.items()}, where)


def explain(config_type: type[BaseModel], error: ValidationError) -> str:
    """A validation error in one line: the path of each wrong key and what is wrong with it."""
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
        return f"unknown key {path!r}{near_names(str(location[-1]), known)}"
    if detail["type"] == "missing":
        return f"{path}: required"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    message = message.removeprefix("value error, ")
    given = detail["input"]
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{path}: {message}{shown}" if path else f"{message}{shown}"


def _walk(config_type: type[BaseModel], location: list[str | int]) -> tuple[list[str | int], type[BaseModel] | None]:
    """The keys of a location as its author wrote them, and the config class that they lead to.

    Pydantic puts the tag of a union's member into the location; nobody wrote that.
    """
    keys: list[str | int] = []
    current: list[type[BaseModel]] = [config_type]
    for part in location:
        tagged = [model for model in current if _has_tag(model, part)] if len(current) > 1 else []
        if tagged:  # also where a member has a field of that name: the tag comes first
            current = tagged
            continue
        fields = [model.model_fields[str(part)] for model in current if str(part) in model.model_fields]
        keys.append(part)
        nested = [model for field in fields for model in _models_in(field.annotation)]
        current = nested or current
    return keys, current[0] if current else None


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    return any(field.default == tag for field in model.model_fields.values())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    found: list[type[BaseModel]] = []
    for argument in getattr(annotation, "__args__", ()):
        found.extend(_models_in(argument))
    return found


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
            plain[str(extra.get("was", name))] = _plain(getattr(value, name))
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
