"""Names and captions of others on a terminal: what it would obey is shown, not sent."""

from __future__ import annotations


def printable(text: str, most: int | None = None) -> str:
    """The text with control characters written out; cut with an ellipsis to so many letters."""
    seen = "".join(
        char if char.isprintable() else f"\\x{ord(char):02x}" for char in (text if most is None else text[: most + 1])
    )
    return seen if most is None or len(seen) <= most else seen[: most - 1] + "…"
