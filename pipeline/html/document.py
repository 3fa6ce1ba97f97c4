"""A page as one self-contained HTML document, and the number cards in its header."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.html.markup import Child, Markup, escape_html, tag
from pipeline.html.theme import CSS


def document(
    title: str,
    *,
    kind: str,
    heading: str,
    introduction: Child,
    sections: Sequence[tuple[str, str, Markup | None]],
    footer: Child,
    css: str = "",
) -> str:
    """The whole document: header, links to the sections, the sections, footer.

    Args:
        title: title of the browser tab.
        kind: the type of page, e.g. "data card".
        introduction: text below the heading.
        sections: (id, heading, content) of each; a section without content is omitted.
        css: rules of this page, added to the common rules of all pages.
    """
    present = [(id, heading, content) for id, heading, content in sections if content is not None]
    body = tag(
        "main",
        tag("header", tag("p", f"Tutelage · {kind}", class_="eyebrow"), tag("h1", heading), introduction, class_="top"),
        tag("nav", [tag("a", heading, href=f"#{id}") for id, heading, _ in present], aria_label="Sections"),
        [tag("section", tag("h2", heading), content, id=id) for id, heading, content in present],
        tag("footer", footer),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape_html(title)}</title>\n<style>{CSS}{css}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def number_card(label: str, value: str, note: str) -> Markup:
    """A number in large digits, between its label and a note for comparison."""
    return tag(
        "div",
        tag("p", label, class_="label"),
        tag("p", value, class_="figure-value"),
        tag("p", note, class_="label"),
        class_="card",
    )
