"""The licence of weights: of the files next to them, or of the package that brings them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

# Files that are fetched along with weights.
FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "README.md")
_NAMES = re.compile(r"(licen[cs]e|copying)(\.(txt|md))?", re.IGNORECASE)
_NAME_CHARS = 80  # some packages put the whole text into the field for the name
_CARD = re.compile(r"\A---\s*\n(?:.*\n)*?license:\s*[\"']?([\w.+-]+)")


@dataclass(frozen=True)
class Licence:
    """The licence of weights; empty where the files do not state it.

    Attributes:
        name: from the model card or the package, e.g. "apache-2.0"; "" if they state none.
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

    @classmethod
    def of_package(cls, name: str) -> Licence:
        """The licence of an installed distribution: its metadata, and the licence file in it."""
        installed = distribution(name)
        paths = [Path(str(file.locate())) for file in installed.files or () if _NAMES.fullmatch(file.name)]
        # That of the package itself is in its metadata; others may be of what it vendors.
        files = sorted((path for path in paths if path.is_file()), key=lambda path: ".dist-info" not in str(path))
        text = files[0].read_text(encoding="utf-8", errors="replace") if files else ""
        fields = ("License-Expression", "License")
        stated = [value for field in fields for value in installed.metadata.get_all(field) or ()]
        titles = [line.strip() for line in text.splitlines() if line.strip()]
        names = [name for name in (*stated, *titles[:1]) if name and name != "UNKNOWN" and len(name) <= _NAME_CHARS]
        return cls(names[0] if names else "", text)

    def __str__(self) -> str:
        return self.name or ("see LICENSE" if self.text else "not stated")
