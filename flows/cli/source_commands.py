"""`tutelage sources`: the data that can be read, what each source needs, and an example command."""

from __future__ import annotations

import json
import shlex
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Group
from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from pipeline.config import is_keyed
from pipeline.errors import UnknownNameError
from pipeline.sharding.sources.base import SourceDescription
from pipeline.sharding.sources.catalogue import SOURCES

# Set by the program, or given by the command's argument.
_HIDDEN = ("kind", "fingerprint")


def list_sources(name: str | None, *, as_json: bool = False) -> int:
    """Prints all sources, or the fields of one.

    Raises:
        UnknownNameError: there is no such source.
    """
    if name is not None and name not in SOURCES:
        raise UnknownNameError("source", name, SOURCES)
    if as_json:
        wanted = SOURCES if name is None else {name: SOURCES[name]}
        described = [_as_json(kind, source, fields=name is not None) for kind, source in wanted.items()]
        print(json.dumps(described if name is None else described[0], indent=1, ensure_ascii=False))
        return 0
    console = Console()
    console.print(_overview() if name is None else _page(name, SOURCES[name]), soft_wrap=False)
    return 0


def example_command(kind: str, about: SourceDescription) -> str:
    """The command for a first run of a source: with the preset emoji, which holds out an artist, or else photos."""
    preset = "emoji" if kind == "emoji" else "photos"
    settings = [f"--set data.source.{setting}" for setting in (f"kind={kind}", *about.example)]
    return " ".join([f"tutelage run shard-dataset --preset {preset}", *settings])


def _as_json(kind: str, source: type[Any], *, fields: bool) -> dict[str, Any]:
    about: SourceDescription = source.about
    described: dict[str, Any] = {
        "kind": kind,
        "reads": about.reads,
        "needs": about.needs,
        "example": example_command(kind, about),
    }
    if fields:
        described["fields"] = [
            {"name": field, "default": _default(info), "description": info.description, "keyed": is_keyed(info)}
            for field, info in _fields(source)
        ]
    return described


def _overview() -> Group:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("kind", no_wrap=True)
    table.add_column("reads", overflow="fold")
    table.add_column("needs", overflow="fold")
    for kind, source in SOURCES.items():
        table.add_row(Text(kind, "bold"), source.about.reads, source.about.needs)
    shown = Text("tutelage sources KIND prints the fields of one, and an example command", "dim")
    return Group(table, Text(), shown)


def _page(kind: str, source: type[Any]) -> Group:
    about: SourceDescription = source.about
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("field", no_wrap=True)
    table.add_column("default", overflow="fold", max_width=24)
    table.add_column("meaning", overflow="fold")
    for name, info in _fields(source):
        style = "bold" if info.is_required() else ""
        table.add_row(Text(name, style), Text(_default(info), style), info.description or "")
    return Group(
        Text.assemble((kind, "bold"), f"  {about.reads}"),
        Text.assemble(("needs ", "dim"), about.needs),
        Text(),
        table,
        Text(),
        Text("A first run:", "dim"),
        Text("  " + example_command(kind, about).replace(" --set", " \\\n    --set")),
    )


def _fields(source: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """The fields that a user sets, required fields first."""
    fields = [(name, info) for name, info in source.model_fields.items() if name not in _HIDDEN]
    return sorted(fields, key=lambda field: not field[1].is_required())


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default
    if isinstance(value, tuple):
        return f"[{', '.join(str(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shlex.quote(value) if isinstance(value, str) else str(value)
