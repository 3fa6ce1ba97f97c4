"""Files and folders that a listing skipped, counted by kind and with examples, so that all are reported."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import shortened
from pipeline.folders import files_below
from pipeline.pixels.extensions import IMAGE_SUFFIXES, OTHER_SUFFIXES
from pipeline.sharding.format import file_addresses as addresses

_NAMES = 20  # examples
_CHARS = 200  # of a name or a kind
_KINDS = 40  # that are counted separately
_KINDS_SAID = 6  # in `in_words`
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


def files_passed_over(pattern: str, suffixes: Sequence[str], *, named: bool = False) -> PassedOver:
    """The files of a folder that `addresses.find` skips because of their names; none for a pattern.

    Args:
        suffixes: see `addresses.find`.
        named: do not count images, because the rows of the files name them.
    Raises:
        InputError: a folder cannot be listed.
    """
    if "{" in pattern or addresses.is_pattern(pattern):
        return NOTHING_PASSED_OVER
    url = addresses.absolute(pattern)
    passed = PassedOverCount()
    if addresses.is_remote(url):
        names = [file.url for file in addresses.below(url)]
    elif os.path.isdir(url):
        names = [entry.path for entry in files_below(url, hidden=False)]
    else:
        return NOTHING_PASSED_OVER
    for name in names:
        kind = kind_of_name(name)
        if not addresses.ends_with(name.rpartition("/")[2], suffixes) and not (named and kind in IMAGE_SUFFIXES):
            passed.add(kind, name.removeprefix(url).lstrip("/"))
    return passed.done()
