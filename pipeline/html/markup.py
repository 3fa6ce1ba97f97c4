"""HTML from Python: every text is escaped unless it is Markup, and only `tag` converts text to Markup."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TypeAlias

from pipeline.printable import printable

_VOID = frozenset({"img", "meta", "br", "hr", "link", "col"})


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def escape_html(text: str) -> str:
    """Escapes untrusted text for HTML: markup, control characters and bidirectional overrides become visible."""
    return escape("\n".join(map(printable, text.replace("\t", " ").split("\n"))))


Child: TypeAlias = "str | int | float | Markup | Sequence[Child] | None"


def tag(name: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """An element.

    Args:
        name: e.g. "p".
        children: texts, which are escaped, or Markup, which is not; None is omitted.
        attributes: class_ stands for class, aria_label for aria-label; None and False are omitted.
    """
    rendered = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape_html(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{rendered}>")
    return Markup(f"<{name}{rendered}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Concatenates children without an enclosing element."""
    pieces: list[str] = []
    for child in children:
        if child is None:
            continue
        if not isinstance(child, str | int | float):
            pieces.append(join(*child))
        else:
            pieces.append(child if isinstance(child, Markup) else escape_html(str(child)))
    return Markup("".join(pieces))


def table(
    head: Sequence[str], rows: Sequence[Sequence[Child]], *, numeric: frozenset[int] = frozenset(), class_: str = ""
) -> Markup:
    """A table that scrolls horizontally if it does not fit.

    Args:
        numeric: indices of the columns that are right-aligned.
    """

    def cells(kind: str, row: Sequence[Child]) -> list[Markup]:
        return [tag(kind, cell, class_="number" if column in numeric else None) for column, cell in enumerate(row)]

    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", cells("th", head))),
            tag("tbody", [tag("tr", cells("td", row)) for row in rows]),
        ),
        class_=f"scroll {class_}".strip(),
        tabindex=0,
    )


def details(title: str, *children: Child) -> Markup:
    """Content that is collapsed under its title."""
    return tag("details", tag("summary", title), *children)
