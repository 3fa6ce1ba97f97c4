"""Markdown from Python: escapes untrusted text, code, URLs and table cells, so that they are only displayed.

Its renderers (Prefect, MLflow, GitHub) accept HTML and links, so every name, caption, licence and reason is
passed through one of these functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pipeline.printable import printable
from pipeline.service_url import without_credentials

# Some renderers do not support a backslash before < and &, so these become HTML entities.
_SPECIAL = re.compile(r"[\\`*_{}\[\]#!|~$]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# A start of the line that makes it a list item or definition, or the line above it a heading.
_LIST = re.compile(r"^(?=[-+=:])|(?<=^[0-9])(?=[.)]( |$))")
_WEB_URL = re.compile(r"https?://[A-Za-z0-9.\-]+(:\d+)?(/[A-Za-z0-9._~!$&'()*+,;=:@%/?#\-]*)?")


def text(value: Any) -> str:
    """Escapes a text, so that Markdown shows it literally on one line."""
    line = printable(" ".join(str(value).split()))
    escaped = "".join(_ENTITIES.get(character, character) for character in _SPECIAL.sub(r"\\\g<0>", line))
    return _LIST.sub(r"\\", escaped, count=1)


def code(value: Any) -> str:
    """The text as inline code."""
    return f"`{printable(' '.join(str(value).split())).replace('`', chr(39))}`"


def link(value: Any) -> str:
    """A link if the text is a plain web URL, else the text; without user and password."""
    bare = without_credentials(str(value).strip())
    return f"<{bare}>" if _WEB_URL.fullmatch(bare) else text(bare)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[bool] = ()) -> list[str]:
    """The lines of a table; cells are texts, numbers (with thousands separators), or `Cell`s, which are Markdown.

    Args:
        right: for each column, whether it is right-aligned; columns beyond its end are not.
    """
    rule = ["---:" if column < len(right) and right[column] else "---" for column in range(len(head))]
    cells = [[_cell(cell) for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in ([_cell(name) for name in head], rule, *cells)]


class Cell(str):
    """Markdown that `table` does not escape."""

    __slots__ = ()


def _cell(value: Any) -> str:
    if isinstance(value, Cell):
        return value.replace("|", "%7C")  # A | would end the cell; a cell's Markdown is a link.
    return f"{value:,}" if isinstance(value, int) else text(value)
