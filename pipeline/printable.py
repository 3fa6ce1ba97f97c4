"""Names and captions of others where people read them: what a terminal or a browser would obey is shown, not sent."""

from __future__ import annotations

import re

# Control characters, what turns the direction of writing, line and paragraph separators, halves of pairs. What
# joins and varies letters and emoji (U+200C, U+200D, variation selectors, tags) stays.
_OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str, most: int | None = None) -> str:
    """The text with control characters written out; cut with an ellipsis to so many letters."""
    seen = _OBEYED.sub(_written_out, text if most is None else text[: most + 1])
    return seen if most is None or len(seen) <= most else seen[: most - 1] + "…"


def _written_out(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
