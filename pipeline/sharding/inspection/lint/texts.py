"""Checks of captions, labels and .json members: invalid text, or text that affects readers. One function per check."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.sharding.inspection.lint.findings import Code, Severity, code
from pipeline.sharding.sources.foreign_json import parse_json

MAX_CAPTION_CHARS = 2000
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_INTEGER = re.compile(rb"\s*[+-]?[0-9]+\s*")
_MAX_DIGITS = 4300  # Python's own limit for int()


@dataclass(frozen=True)
class Text:
    """A small member of a sample."""

    key: str
    data: bytes

    @cached_property
    def decoded(self) -> tuple[str, UnicodeDecodeError | None]:
        """The text, and the decoding error or None; invalid UTF-8 becomes replacement characters."""
        try:
            return self.data.decode("utf-8"), None
        except UnicodeDecodeError as error:
            return self.data.decode("utf-8", "replace"), error

    @cached_property
    def parsed(self) -> tuple[Any, TextProblem | None]:
        """The JSON value, and the error or None."""
        text, fault = self.decoded
        if fault is not None:
            return None, TextProblem(f"not JSON: {_not_utf8(fault)}", fault.start)
        try:
            return parse_json(text.removeprefix("\ufeff")), None
        except json.JSONDecodeError as error:
            bom_bytes = len("\ufeff".encode()) if text.startswith("\ufeff") else 0
            byte = len(error.doc[: error.pos].encode("utf-8", "surrogatepass")) + bom_bytes
            return None, TextProblem(f"not JSON ({error.msg})", byte)
        except RecursionError:
            return None, TextProblem("not JSON that can be read (it is nested too deeply)")
        except ValueError as error:
            return None, TextProblem(f"not JSON that can be read ({error})")

    @property
    def json_fields(self) -> frozenset[str]:
        """Those of "caption" and "label" that the .json has."""
        metadata = self.parsed[0]
        if not isinstance(metadata, dict):
            return frozenset()
        captions = any(metadata.get(name) for name in ("caption", "captions"))
        labels = any(metadata.get(name) is not None for name in ("label", "cls"))
        return frozenset({*(["caption"] if captions else []), *(["label"] if labels else [])})


@dataclass(frozen=True, slots=True)
class TextProblem:
    """A problem of a text, and its byte offset in the text."""

    message: str
    byte: int = 0


Check = Callable[[Text], "TextProblem | None"]
CHECKS: list[tuple[frozenset[str], Code, Check]] = []


def check(extensions: str, name: str, severity: Severity, doc: str) -> Callable[[Check], Check]:
    """Registers a check of members with one of these extensions."""

    def register(function: Check) -> Check:
        CHECKS.append((frozenset(extensions.split()), code(name, severity, doc), function))
        return function

    return register


CHECKED = frozenset({"txt", "text", "json", "cls"})
"""The extensions of members that are checked."""


@check(
    "txt text", "caption-encoding", "error", "A caption that is not UTF-8: readers raise, and we quarantine the sample."
)
def encoding(text: Text) -> TextProblem | None:
    fault = text.decoded[1]
    return None if fault is None else TextProblem(_not_utf8(fault), fault.start)


@check("txt text", "caption-empty", "warning", "A caption without a letter: the image is trained on without text.")
def empty(text: Text) -> TextProblem | None:
    return None if text.data.strip() else TextProblem("the caption is empty")


@check(
    "txt text",
    "caption-long",
    "warning",
    f"A caption of more than {MAX_CAPTION_CHARS:,} characters: text backbones read the first 77 tokens.",
)
def long(text: Text) -> TextProblem | None:
    count = len(text.decoded[0])
    return TextProblem(f"{count} characters") if count > MAX_CAPTION_CHARS else None


@check("txt text", "caption-control", "warning", "Control characters or a byte-order mark in a caption.")
def control(text: Text) -> TextProblem | None:
    match = _CONTROL.search(text.decoded[0])
    if match is None or text.decoded[1] is not None:
        return None
    return TextProblem(
        f"a control character (U+{ord(match.group()):04X})", len(text.decoded[0][: match.start()].encode())
    )


@check("json", "json-broken", "error", "A `.json` that is not JSON: readers raise.")
def broken(text: Text) -> TextProblem | None:
    return text.parsed[1]


@check("json", "json-key", "warning", "The `key` in the `.json` is not the sample's: it may be of another image.")
def other_key(text: Text) -> TextProblem | None:
    metadata = text.parsed[0]
    json_key = metadata.get("key") if isinstance(metadata, dict) else None
    if (
        not isinstance(json_key, str | int)
        or isinstance(json_key, bool)
        or str(json_key) in (text.key, text.key.rpartition("/")[2])
    ):
        return None
    return TextProblem(f"it says key {str(json_key)[:80]!r}")


@check("json", "json-text", "error", "A text in the `.json` that cannot be written (half of a surrogate pair).")
def unwritable(text: Text) -> TextProblem | None:
    if rb"\ud" not in text.data.lower():
        return None
    metadata = text.parsed[0]
    for name, value in metadata.items() if isinstance(metadata, dict) else ():
        for item in value if isinstance(value, list) else [value]:
            try:
                str(item).encode()
            except UnicodeEncodeError as error:
                return TextProblem(f"its {str(name)[:40]!r} holds {item[error.start]!a}, half of a character")
    return None


@check("cls", "label-not-integer", "error", "A `.cls` that is not an integer: WebDataset's decoder raises ValueError.")
def not_integer(text: Text) -> TextProblem | None:
    shown = text.decoded[0][:40]
    if not _INTEGER.fullmatch(text.data):
        return TextProblem(f"{shown!r} is no integer")
    digits = len(text.data.strip().lstrip(b"+-"))
    if digits > _MAX_DIGITS:
        return TextProblem(f"{shown!r}... has {digits:,} digits, more than Python converts")
    return None


def _not_utf8(fault: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{fault.object[fault.start]:02x})"
