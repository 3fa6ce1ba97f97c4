"""The sections about licences and the options of the stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.config import Config, is_keyed
from pipeline.html.markup import Child, Markup, details, join, table, tag


def licences_section(card: Mapping[str, Any]) -> Markup:
    """A table of works, authors and licences."""
    rows: list[list[Child]] = [
        [credit["work"], credit["author"], credit["licence"], tag("span", credit["url"], class_="quiet")]
        for credit in card["credits"]
    ]
    return join(
        table(["work", "author", "licence", "where"], rows) if rows else tag("p", "Not stated.", class_="lead"),
    )


def options_section(config: Config) -> Markup:
    """The options that determine the data: those that were set, and in a collapsed table all others."""
    options = list(_options(config))
    changed: list[list[Child]] = [
        _row(path, value, description) for path, value, description, default in options if not default
    ]
    others: list[list[Child]] = [
        _row(path, value, description) for path, value, description, default in options if default
    ]
    return join(
        tag(
            "p",
            "Of the stage shard-dataset; the same source with the same options gives the same bytes. The location of "
            "the source and the options for running are not in the artifact's key, and are not listed.",
            class_="lead",
        ),
        table(["option", "value", ""], changed),
        details(f"{len(others)} options at their defaults", table(["option", "value", ""], others)),
    )


def _options(config: BaseModel, path: str = "") -> Iterator[tuple[str, Any, str, bool]]:
    """Yields (path, value, description, whether it is the default) of each option in the artifact's key."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        option_path = f"{path}.{name}" if path else name
        if isinstance(value, BaseModel):
            yield from _options(value, option_path)
        elif is_keyed(field) and name != "fingerprint":
            yield option_path, value, field.description or "", value == field.default and name != "kind"


def _row(path: str, value: Any, description: str) -> list[Child]:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return [tag("code", path), tag("code", shown), tag("span", description, class_="quiet")]
