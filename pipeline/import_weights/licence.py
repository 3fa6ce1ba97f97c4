"""The licence of weights, from the files next to them: a licence file, or the header of a model card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Files that are fetched along with weights.
FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "README.md")
_NAMES = re.compile(r"(licen[cs]e|copying)(\.(txt|md))?", re.IGNORECASE)
_CARD = re.compile(r"\A---\s*\n(?:.*\n)*?license:\s*[\"']?([\w.+-]+)")


@dataclass(frozen=True)
class Licence:
    """The licence of weights; empty where the files do not state it.

    Attributes:
        name: from the model card, e.g. "apache-2.0"; "" if the card states none.
        text: the licence text; "" if there is none.
    """

    name: str = ""
    text: str = ""

    @classmethod
    def find(cls, weights: Path) -> Licence:
        """The licence that the files next to a weights file state."""
        folder = weights.parent
        card = folder / "README.md"
        match = _CARD.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
        files = sorted(path for path in folder.iterdir() if path.is_file() and _NAMES.fullmatch(path.name))
        text = files[0].read_text(encoding="utf-8", errors="replace") if files else ""
        return cls(match[1] if match else "", text)

    def __str__(self) -> str:
        return self.name or ("see LICENSE" if self.text else "not stated")
