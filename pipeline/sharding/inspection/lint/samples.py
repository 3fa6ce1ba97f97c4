"""Checks of samples: groups the members of a tar by WebDataset's rule, and reports names that do not fit it.

The rule: the key is the name up to the first dot after the last slash, the rest is the extension, and the members of
a sample are adjacent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.counter_rng import text_hash
from pipeline.errors import listed
from pipeline.sharding.format.tar_layout import BLOCK
from pipeline.sharding.format.valid_text import valid_text
from pipeline.sharding.inspection.lint.findings import Code, Finding, Findings, code
from pipeline.sharding.sources.tar_listing import EVERY_IMAGE_EXTENSION, MEMBER_NAME, META_NAME
from pipeline.sharding.sources.tar_members import Member

IGNORED = code("member-ignored", "warning", "A name without an extension, or with a leading dot: WebDataset skips it.")
UNKNOWN = code("member-unknown", "warning", "An extension unknown to WebDataset's decoders: the member stays bytes.")
EMPTY = code("member-empty", "warning", "An empty member that is not an image.")
PICKLE = code("member-pickle", "warning", "A pickle: reading it can execute any code.")
CASE = code(
    "extension-case",
    "warning",
    "One extension in upper and lower case: WebDataset lower-cases it, other readers see two extensions.",
)
REPEATED = code(
    "member-repeated", "error", "A key has an extension twice, one after the other: WebDataset raises ValueError."
)
SPLIT = code("sample-split", "error", "The members of a key are not adjacent: readers see two samples instead of one.")
KEY_REPEATED = code(
    "key-repeated", "warning", "A key is repeated later in the same tar: readers see two samples with one key."
)
DOTS = code(
    "key-dots",
    "error",
    "A dot inside the name ends the key early (`photo.v2.jpg` is sample `photo`): no image is found, or samples merge.",
)
NO_IMAGE = code("sample-no-image", "error", "A sample without an image: asking for one raises, and we quarantine it.")

# The extensions that webdataset decodes, and others that are common in image data sets.
_DECODED_WORDS = (
    "txt text transcript cls cls2 class count index inx id json jsn jsonl pyd pickle pkl pth pt npy npz ten tb mp msg "
    "mpack cbor safetensors html xml csv tsv url ppm pgm pbm pnm jp2 avif heic exr hdr svg mp4 mov avi mkv mpg webm "
    "wav flac mp3 ogg m4a gz bin md5 jpg jpeg png webp bmp gif tif tiff"
)
_DECODED = frozenset(_DECODED_WORDS.split())
_PICKLES = frozenset({"pyd", "pickle", "pkl", "pth", "pt"})
# Limit for the keys of a tar against which later keys are compared: 100 bytes of memory each.
_REMEMBERED_KEYS = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """The adjacent members of a key, by their extensions in lower case.

    Attributes:
        image: the member with the image, or None.
        whole: False for a later part of a sample whose members are not adjacent.
    """

    key: str
    members: Mapping[str, Member]
    image: Member | None
    whole: bool


class Grouping:
    """Groups the members of one tar into samples.

    Args:
        shard: the tar's name in findings.
    """

    def __init__(self, shard: str, findings: Findings) -> None:
        self._shard = shard
        self._findings = findings
        self._key = ""
        self._members: dict[str, Member] = {}
        self._again = False
        self._seen: dict[int, tuple[int, int]] = {}
        self._bits: dict[str, int] = {}
        self._cases: dict[str, dict[bool, Member]] = {}

    def feed(self, member: Member) -> tuple[str, str, Sample | None]:
        """Adds the next member; returns its key and extension ("" if it is skipped), and the sample that it ended."""
        if META_NAME.match(member.name):
            return "", "", None
        match = MEMBER_NAME.fullmatch(member.name)
        if match is None:
            self._report(IGNORED, member, "", "its name has no key and extension")
            return "", "", None
        key, written = match.group(1), match.group(2)
        extension = written.lower()
        self._check_name(member, key, written, extension)
        ended = None
        if self._members and (key != self._key or extension in self._members):
            again = key == self._key
            if again:
                first = self._members[extension].offset - BLOCK
                self._report(REPEATED, member, key, f".{extension} is there already, at byte {first}")
            ended = self.end()
            self._again = again
        self._key = key
        self._members[extension] = member
        return key, extension, ended

    def end(self) -> Sample | None:
        """Ends the current sample and returns it; None if there is none."""
        if not self._members:
            return None
        members, key, again = self._members, self._key, self._again
        self._members, self._again = {}, False
        first = next(iter(members.values()))
        image = next((members[extension] for extension in EVERY_IMAGE_EXTENSION if extension in members), None)
        whole = self._check_key(key, members, first, again)
        if image is None and whole:
            dotted = [member for ext, member in members.items() if ext.rpartition(".")[2] in EVERY_IMAGE_EXTENSION]
            for member in dotted:  # Each may be a separate sample with a dot in its name.
                rest = member.name.removeprefix(key)
                self._report(DOTS, member, key, f"the first dot ends the key, and {rest!r} is no extension of an image")
            if not dotted:
                self._report(NO_IMAGE, first, key, f"no image among its members ({listed(members)})")
        return Sample(key, members, image, whole)

    def close(self) -> None:
        """Ends the tar and adds the findings that depend on all its members."""
        for extension, cases in self._cases.items():
            if len(cases) == 2:
                other = cases[False].name
                message = f".{extension} is in upper case here, and in lower case e.g. in {other}"
                self._report(CASE, cases[True], "", message)

    def _check_name(self, member: Member, key: str, written: str, extension: str) -> None:
        last = extension.rpartition(".")[2]
        if last not in _DECODED:
            self._report(UNKNOWN, member, key, f".{extension} is an extension that no decoder knows")
        elif last in _PICKLES:
            self._report(PICKLE, member, key, f".{extension} is a pickle, and reading one runs code")
        if not member.length and extension not in EVERY_IMAGE_EXTENSION and extension != "txt":
            self._report(EMPTY, member, key, "it is empty")
        self._cases.setdefault(extension, {}).setdefault(written != extension, member)

    def _check_key(self, key: str, members: Mapping[str, Member], first: Member, again: bool) -> bool:
        """Compares a sample's key with the earlier keys; returns False for a part of an earlier sample."""
        bits = sum(1 << self._bits.setdefault(extension, len(self._bits)) for extension in members)
        hashed = text_hash(valid_text(key))
        before = self._seen.get(hashed)
        if before is None:
            if len(self._seen) < _REMEMBERED_KEYS:
                self._seen[hashed] = (bits, first.offset - BLOCK)
            return True
        self._seen[hashed] = (before[0] | bits, before[1])
        if again:
            return True
        if before[0] & bits:
            self._report(KEY_REPEATED, first, key, f"an earlier sample, at byte {before[1]}, has the same key")
            return True
        self._report(
            SPLIT, first, key, f"other members of the key are at byte {before[1]}, with other samples in between"
        )
        return False

    def _report(self, code: Code, member: Member, key: str, message: str) -> None:
        self._findings.add(Finding(code, self._shard, message, key, member.name, member.offset - BLOCK))
