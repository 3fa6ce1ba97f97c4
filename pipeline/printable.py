"""Escapes untrusted names and captions for display: control characters are shown instead of interpreted."""

from __future__ import annotations

import re

# Control characters, bidirectional controls, line and paragraph separators, surrogates. Joiners and variation
# selectors of letters and emoji (U+200C, U+200D, variation selectors, tags) are not escaped.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str, limit: int | None = None) -> str:
    """The text with control characters escaped; truncated with an ellipsis to `limit` characters."""
    escaped = _CONTROL.sub(_escaped, text if limit is None else text[: limit + 1])
    return escaped if limit is None or len(escaped) <= limit else escaped[: limit - 1] + "…"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
