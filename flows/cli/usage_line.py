"""The error line of a command that was written wrongly, with the command whose --help says more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import typer

from pipeline.errors import shortened

_USAGE_CHARS = 600


def command_path(command: Any, arguments: Sequence[str]) -> str:
    """The command that the arguments begin with, e.g. "tutelage models show"."""
    path = ["tutelage"]
    for argument in arguments:
        command = getattr(command, "commands", {}).get(argument)
        if command is None:
            break
        path.append(argument)
    return " ".join(path)


def usage_line(error: typer.TyperException, command: str) -> str:
    """The error's message in one line, with the command whose --help says more."""
    format_message = getattr(error, "format_message", None)
    message = str(format_message() if format_message else error).strip()
    if not message:
        return "no command given; see tutelage --help"
    line = shortened(" ".join(message.split()).rstrip("."), _USAGE_CHARS)
    setting = re.search(r"extra argument.*?\(([\w.]+=)", line)
    advice = (
        f"write --set {setting[1]}..." if setting and command.startswith(("tutelage run", "tutelage config")) else ""
    )
    return "; ".join(part for part in (line, advice, f"see {command} --help") if part)
