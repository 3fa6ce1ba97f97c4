"""The licence of weights, from what lies beside them: a file of that name, or the head of a model card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# What is asked for beside weights that have to be fetched.
FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "README.md")
_NAMES = re.compile(r"(licen[cs]e|copying)(\.(txt|md))?", re.IGNORECASE)
_CARD = re.compile(r"\A---\s*\n(?:.*\n)*?license:\s*[\"']?([\w.+-]+)")


@dataclass(frozen=True)
class Licence:
    """What is known.

    Attributes:
        name: as the model card says, e.g. "apache-2.0"; "" if it says nothing.
        text: the licence itself; "" if there is none.
    """

    name: str = ""
    text: str = ""

    @classmethod
    def beside(cls, weights: Path) -> Licence:
        """That of a file of weights."""
        folder = weights.parent
        card = folder / "README.md"
        found = _CARD.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
        files = sorted(path for path in folder.iterdir() if path.is_file() and _NAMES.fullmatch(path.name))
        text = files[0].read_text(encoding="utf-8", errors="replace") if files else ""
        return cls(found[1] if found else "", text)

    def __str__(self) -> str:
        return self.name or ("see LICENSE" if self.text else "not stated")
