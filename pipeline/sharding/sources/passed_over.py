"""Files and folders that a listing skipped, counted by kind and with examples, so that all are reported."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import shortened
from pipeline.pixels.extensions import OTHER_SUFFIXES

_NAMES = 20
_CHARS = 200
_KINDS = 40
_KINDS_SAID = 6
HIDDEN, LOOSE, BROKEN_LINK = "hidden", "in no class folder", "broken link"
LOOP, SPECIAL = "link to a folder above", "no regular file"
_OTHER = "other kinds"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """The skipped files and folders.

    Attributes:
        kinds: number by kind: an extension, or words such as "hidden"; the most frequent first.
        names: the first names.
    """

    kinds: Mapping[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return sum(self.kinds.values())

    def in_words(self) -> str:
        """The counts as text: "12 .heic, 3 hidden"; "" if nothing was skipped."""
        said = [f"{count:,} {kind}" for kind, count in list(self.kinds.items())[:_KINDS_SAID]]
        rest = self.count - sum(list(self.kinds.values())[:_KINDS_SAID])
        return ", ".join([*said, *([f"{rest:,} more"] if rest else [])])

    @property
    def perhaps_images(self) -> dict[str, int]:
        """The kinds that may be images in an unsupported format, with their counts."""
        return {kind: count for kind, count in self.kinds.items() if kind not in (HIDDEN, *OTHER_SUFFIXES)}

    def plain(self) -> dict[str, Any]:
        """The content as JSON values."""
        return {"count": self.count, "per_kind": dict(self.kinds), "first": list(self.names)}


NOTHING_PASSED_OVER = PassedOver()


class PassedOverCount:
    """Counts skipped files and folders."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._names: list[str] = []

    def add(self, kind: str, name: str) -> None:
        self._kinds[shortened(kind, _CHARS)] += 1
        if len(self._names) < _NAMES:
            self._names.append(shortened(name, _CHARS))

    def extend(self, more: PassedOver, prefix: str = "") -> None:
        """Adds the skipped files of another listing.

        Args:
            prefix: prefix for its names, e.g. "00000.tar: ".
        """
        self._kinds.update(more.kinds)
        self._names += [prefix + name for name in more.names[: _NAMES - len(self._names)]]

    def done(self) -> PassedOver:
        ordered = sorted(self._kinds.items(), key=lambda one: (-one[1], one[0]))
        kinds = dict(ordered[:_KINDS])
        rest = sum(count for _, count in ordered[_KINDS:])
        return PassedOver(kinds | ({_OTHER: rest} if rest else {}), tuple(self._names))


def kind_of_name(name: str) -> str:
    """The kind of a skipped file: its extension in lower case, or "no extension"."""
    return os.path.splitext(name)[1].lower() or "no extension"
