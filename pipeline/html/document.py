"""A page as one document without any reference to elsewhere."""

from __future__ import annotations

from pipeline.html.markup import Markup, escaped
from pipeline.html.theme import CSS


def document(title: str, body: Markup, *, css: str = "") -> str:
    """The whole document.

    Args:
        css: rules of this page beside those that all pages share.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{CSS}{css}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
