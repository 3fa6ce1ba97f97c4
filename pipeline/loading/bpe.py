"""CLIP's byte-pair encoding in plain Python: the same token ids as the compiled tokenizer.

This file imports the standard library only, because registered models carry its source: they tokenise prompts in
processes without Tutelage. The vocabulary is read from a file that `pipeline.loading.vocabulary` writes. About 60,000
captions/s (one core), because the tokens of words are cached.
"""

from __future__ import annotations

import functools
import gzip
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

START, END = "<start_of_text>", "<end_of_text>"

# CLIP numbers the printable bytes first. Token t + 256 is the byte of token t at the end of a word.
PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = [*PRINTED, *(byte for byte in range(256) if byte not in PRINTED)]
_TOKEN_OF_BYTE = {byte: token for token, byte in enumerate(_BYTES)}
_FIRST_MERGE = 512


class BytePairEncoder:
    """Encodes text.

    Args:
        vocabulary: "merges", the pairs of tokens that become token 512, 513, ...; "letters",
            "numbers" and "spaces", the contents of regular expression classes.
    """

    def __init__(self, vocabulary: Mapping[str, Any]) -> None:
        self._merges = {(left, right): _FIRST_MERGE + i for i, (left, right) in enumerate(vocabulary["merges"])}
        self.start_of_text = _FIRST_MERGE + len(self._merges)
        self.end_of_text = self.start_of_text + 1
        letters, numbers, spaces = (vocabulary[name] for name in ("letters", "numbers", "spaces"))
        self._words = re.compile(
            f"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|[{letters}]+|[{numbers}]|[^{spaces}{letters}{numbers}]+"
        )
        self._word_tokens = functools.lru_cache(maxsize=1 << 16)(self._merge_word)

    @classmethod
    def read(cls, path: str) -> BytePairEncoder:
        """The encoder of a vocabulary file (gzipped JSON)."""
        with gzip.open(path, "rt", encoding="ascii") as file:
            return cls(json.load(file))

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        return [token for word in self._words.findall(text.lower()) for token in self._word_tokens(word)]

    def encode_batch(self, texts: Iterable[str], context_length: int) -> list[list[int]]:
        """Token ids of each text between start and end, truncated or padded with 0 to `context_length`."""
        rows = []
        for text in texts:
            row = [self.start_of_text, *self.encode(text)[: context_length - 2], self.end_of_text]
            rows.append(row + [0] * (context_length - len(row)))
        return rows

    def _merge_word(self, word: str) -> tuple[int, ...]:
        if word == START:
            return (self.start_of_text,)
        if word == END:
            return (self.end_of_text,)
        tokens = [_TOKEN_OF_BYTE[byte] for byte in word.encode()]
        tokens[-1] += 256
        return tuple(_merge(tokens, self._merges))


def _merge(tokens: list[int], merges: Mapping[tuple[int, int], int]) -> list[int]:
    """Merges neighbouring tokens, the earliest merge first, until no merge applies."""
    while len(tokens) > 1:
        pairs = [(merges[pair], pair) for pair in itertools.pairwise(tokens) if pair in merges]
        if not pairs:
            break
        new, (left, right) = min(pairs)
        merged: list[int] = []
        for token in tokens:
            # `merged` ends in `left` only if that token was not merged already: then this pair becomes one token.
            if token == right and merged and merged[-1] == left:
                merged[-1] = new
            else:
                merged.append(token)
        tokens = merged
    return tokens
