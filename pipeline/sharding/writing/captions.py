"""Cleans captions of remains of web pages, drops those without content, and counts both."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from pydantic import Field, model_validator

from pipeline.config import Config, renamed

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_ONLY_ADDRESSES = re.compile(r"(?:(?:https?://|www\.)\S+\s*)+", re.IGNORECASE)
# Format characters that are part of words and emoji: the joiners, and the tags of regional flags.
_JOINERS_AND_TAGS = frozenset("\u200c\u200d") | {chr(code) for code in range(0xE0020, 0xE0080)}


class CaptionsConfig(Config):
    """How captions are cleaned, and which captions are dropped."""

    clean: bool = Field(
        True,
        description="Decode HTML entities, remove control characters and repeated captions, and collapse white space.",
    )
    min_chars: int = Field(1, ge=1, description="Minimum length in characters. Shorter captions are dropped.")
    max_chars: int | None = Field(
        None, ge=1, description="Maximum length in characters. Longer captions are dropped. null: no limit."
    )
    drop_urls: bool = Field(True, description="Drop captions that consist of URLs only.")
    mandatory: bool = renamed(False, was="required", description="Quarantine images without any remaining caption.")

    @model_validator(mode="after")
    def _some_length(self) -> CaptionsConfig:
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError(f"max_chars={self.max_chars} is less than min_chars={self.min_chars}")
        return self


class BadTextError(Exception):
    """A caption that is not valid text; the message says why."""


def clean_captions(captions: Sequence[str], config: CaptionsConfig) -> tuple[tuple[str, ...], Counter[str]]:
    """(captions to store, in order; reason -> number of captions changed or dropped for it).

    Raises:
        BadTextError: a caption cannot be encoded as UTF-8, because its bytes were in another encoding.
    """
    stored: list[str] = []
    counts: Counter[str] = Counter()
    for number, caption in enumerate(captions, start=1):
        try:
            caption.encode("utf-8")
        except UnicodeEncodeError as error:
            position = f"character {error.start + 1} of {len(caption)}"
            raise BadTextError(f"caption {number} is not UTF-8 ({position})") from None
        text = _clean(caption) if config.clean else caption
        counts["cleaned"] += text != caption
        reason = _drop_reason(text, config)
        if reason is None and config.clean and text in stored:
            reason = "repeated"
        if reason is None:
            stored.append(text)
        else:
            counts[reason] += 1
    return tuple(stored), +counts


def _drop_reason(text: str, config: CaptionsConfig) -> str | None:
    if len(text) < config.min_chars:
        return "too short"
    if config.max_chars is not None and len(text) > config.max_chars:
        return "too long"
    if config.drop_urls and _ONLY_ADDRESSES.fullmatch(text):
        return "only addresses"
    return None


def _clean(text: str) -> str:
    text = _ENTITY.sub(lambda match: html.unescape(match.group()), text)
    text = " ".join(text.split())
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if text.isascii() and text.isprintable():
        return text
    visible = (char for char in text if char in _JOINERS_AND_TAGS or unicodedata.category(char) not in ("Cc", "Cf"))
    return " ".join("".join(visible).split())
