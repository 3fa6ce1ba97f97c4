"""Files and folders that a listing skipped, counted by kind and with examples, so that all are reported."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pipeline.errors import listed, shortened
from pipeline.folders import files_below
from pipeline.pixels.extensions import HEIF_SUFFIXES, IMAGE_SUFFIXES, OTHER_SUFFIXES, RAW_SUFFIXES
from pipeline.sharding.format import file_addresses as addresses

_MAX_NAMES = 20
_MAX_CHARS = 200  # of a name or a kind
_MAX_KINDS = 40  # kinds beyond these are counted together
_KINDS_IN_WORDS = 6
HIDDEN, IN_NO_CLASS, BROKEN_LINK = "hidden", "in no class folder", "broken link"
LOOP, SPECIAL = "link to a folder above", "no regular file"
_OTHER = "other kinds"


@dataclass(frozen=True, slots=True)
class SkippedFiles:
    """The skipped files and folders.

    Attributes:
        kinds: kind -> number of files, the most frequent first; a kind is an extension, or words such as "hidden".
        names: names of the first 20 files; those of hidden files last.
    """

    kinds: Mapping[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return sum(self.kinds.values())

    def in_words(self) -> str:
        """The counts as text: "12 .heic, 3 hidden"; "" if nothing was skipped."""
        shown = [f"{count:,} {kind}" for kind, count in list(self.kinds.items())[:_KINDS_IN_WORDS]]
        rest = self.count - sum(list(self.kinds.values())[:_KINDS_IN_WORDS])
        return ", ".join([*shown, *([f"{rest:,} more"] if rest else [])])

    @property
    def possible_images(self) -> dict[str, int]:
        """The kinds that may be images in an unsupported format, with their counts."""
        return {kind: count for kind, count in self.kinds.items() if kind not in (HIDDEN, *OTHER_SUFFIXES)}

    @property
    def unread_photos(self) -> str:
        """A sentence about photos in formats that are not read, and what to do; "" if there are none."""
        photos = {kind: count for kind, count in self.kinds.items() if kind in HEIF_SUFFIXES | RAW_SUFFIXES}
        if not photos:
            return ""
        counts = listed([f"{count:,} {kind}" for kind, count in photos.items()])
        what = "is a photo in a format that is" if sum(photos.values()) == 1 else "are photos in formats that are"
        return f"{counts} {what} not read: convert to JPEG, in the same folder"

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`; the order of the kinds may have been lost."""
        return cls(_by_frequency(values["per_kind"]), tuple(values["first"]))

    def as_json(self) -> dict[str, Any]:
        """The content as JSON values."""
        return {"count": self.count, "per_kind": dict(self.kinds), "first": list(self.names)}


NO_SKIPPED_FILES = SkippedFiles()


class SkipCounter:
    """Counts skipped files and folders."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._names: list[str] = []
        self._hidden: list[str] = []

    def add(self, kind: str, name: str) -> None:
        self._kinds[shortened(kind, _MAX_CHARS)] += 1
        # A Mac leaves a hidden file next to each photo; they must not displace the names of photos.
        names = self._hidden if kind == HIDDEN else self._names
        if len(names) < _MAX_NAMES:
            names.append(shortened(name, _MAX_CHARS))

    def extend(self, more: SkippedFiles, prefix: str = "") -> None:
        """Adds the skipped files of another listing.

        Args:
            prefix: put before each of its names, e.g. "00000.tar: ".
        """
        self._kinds.update(more.kinds)
        self._names += [prefix + name for name in more.names[: _MAX_NAMES - len(self._names)]]

    def result(self) -> SkippedFiles:
        ordered = list(_by_frequency(self._kinds).items())
        kinds = dict(ordered[:_MAX_KINDS])
        rest = sum(count for _, count in ordered[_MAX_KINDS:])
        names = [*self._names, *self._hidden][:_MAX_NAMES]
        return SkippedFiles(kinds | ({_OTHER: rest} if rest else {}), tuple(names))


def _by_frequency(kinds: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(kinds.items(), key=lambda entry: (-entry[1], entry[0])))


def kind_of_name(name: str) -> str:
    """The kind of a skipped file: its extension in lower case, or "no extension"."""
    return os.path.splitext(name)[1].lower() or "no extension"


def skipped_by_name(pattern: str, suffixes: Sequence[str], *, rows_name_images: bool = False) -> SkippedFiles:
    """The files of a folder that `addresses.find` skips because of their names; none for a pattern.

    Args:
        suffixes: see `addresses.find`.
        rows_name_images: do not count images: the files are tables whose rows name them.
    Raises:
        InputError: a folder cannot be listed.
    """
    if "{" in pattern or addresses.is_pattern(pattern):
        return NO_SKIPPED_FILES
    url = addresses.absolute(pattern)
    skipped = SkipCounter()
    if addresses.is_remote(url):
        names = [file.url for file in addresses.objects_below(url)]
    elif os.path.isdir(url):
        names = [entry.path for entry in files_below(url, hidden=False)]
    else:
        return NO_SKIPPED_FILES
    for name in names:
        kind = kind_of_name(name)
        if not addresses.has_suffix(name.rpartition("/")[2], suffixes) and not (
            rows_name_images and kind in IMAGE_SUFFIXES
        ):
            skipped.add(kind, name.removeprefix(url).lstrip("/"))
    return skipped.result()
