"""Names of files and tar members as valid Unicode text."""

from __future__ import annotations


def valid_text(name: str) -> str:
    """The name with U+FFFD for bytes that are not UTF-8, which Python represents as lone surrogates."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
