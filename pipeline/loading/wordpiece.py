"""BERT's word pieces in plain Python: the same token ids as the Hugging Face library `tokenizers`.

This file imports the standard library only, because registered models carry its source: they tokenise prompts in
processes without Tutelage. The vocabulary is read from a file that `pipeline.loading.wordpiece_vocabulary` writes. The
pieces of words are cached.

Devlin et al. 2018, section 3, after the authors' code: text is cleaned, for an uncased vocabulary lower-cased and
stripped of accents, split at spaces and punctuation, and each word into the longest known pieces. Characters that
Unicode assigned since 2018 are classified by Python's tables, whereas `tokenizers` treats them as letters.
"""

from __future__ import annotations

import functools
import gzip
import json
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

PADDING, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_LONGEST_WORD = 100  # characters; a longer word is unknown
_PUNCTUATION = {chr(code) for code in (*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127))}
# Each Chinese character is a word; Hangul and kana are not included.
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),  # not from 0x2B820 on, as in `tokenizers`
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPieceEncoder:
    """Encodes text.

    Args:
        vocabulary: "tokens", the pieces in the order of their ids, and "lowercase".
    """

    def __init__(self, vocabulary: Mapping[str, Any]) -> None:
        self._ids = {token: number for number, token in enumerate(vocabulary["tokens"])}
        self._lowercase = bool(vocabulary["lowercase"])
        self._unknown, self._start, self._end = (self._ids[token] for token in (UNKNOWN, START, END))
        self._pieces = functools.lru_cache(maxsize=1 << 16)(self._cut)

    @classmethod
    def read(cls, path: str) -> WordPieceEncoder:
        """The encoder of a vocabulary file (gzipped JSON)."""
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return cls(json.load(file))

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        return [piece for word in self._words(text) for piece in self._pieces(word)]

    def encode_batch(self, texts: Iterable[str], context_length: int) -> list[list[int]]:
        """Token ids of each text between start and end, truncated or padded with 0 to `context_length`."""
        rows = []
        for text in texts:
            row = [self._start, *self.encode(text)[: context_length - 2], self._end]
            rows.append(row + [0] * (context_length - len(row)))
        return rows

    def _words(self, text: str) -> list[str]:
        text = "".join(map(_clean_character, text))
        if self._lowercase:
            text = "".join(map(_lower_character, unicodedata.normalize("NFD", text)))
        return "".join(f" {c} " if _is_punctuation(c) else c for c in text).split()

    def _cut(self, word: str) -> tuple[int, ...]:
        """Splits off the longest known prefix repeatedly; the unknown token if a remainder has no known prefix."""
        if len(word) > _LONGEST_WORD:
            return (self._unknown,)
        pieces, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = self._ids.get(("##" if start else "") + word[start:end])
                if piece is not None:
                    break
            else:
                return (self._unknown,)
            pieces.append(piece)
            start = end
        return tuple(pieces)


@functools.lru_cache(maxsize=1 << 16)
def _clean_character(character: str) -> str:
    """Removes control characters, replaces white space by a space, puts spaces around Chinese characters."""
    if character in "\t\n\r":
        return " "
    category = unicodedata.category(character)
    if character in "\x00\ufffd" or category in ("Cc", "Cf", "Co"):
        return ""
    if category in ("Zs", "Zl", "Zp"):
        return " "
    code = ord(character)
    return f" {character} " if any(first <= code <= last for first, last in _CHINESE) else character


@functools.lru_cache(maxsize=1 << 16)
def _lower_character(character: str) -> str:
    """Removes accents, lower-cases others; by single characters, so that a final capital sigma is not special."""
    return "" if unicodedata.category(character) == "Mn" else character.lower()


@functools.lru_cache(maxsize=1 << 16)
def _is_punctuation(character: str) -> bool:
    return character in _PUNCTUATION or unicodedata.category(character).startswith("P")
