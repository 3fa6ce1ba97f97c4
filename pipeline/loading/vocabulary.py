"""CLIP's vocabulary, as plain data for `bpe.py`.

clip_merges.txt.gz holds the first 48,895 of the 262,145 lines of bpe_simple_vocab_16e6.txt.gz from
github.com/openai/CLIP, the only ones that CLIP reads (MIT, see clip_merges.LICENSE): a header, then the two symbols of
each merge. A non-printable byte is written as a character from U+0100 on, and "</w>" ends a word.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from instant_clip_tokenizer import Tokenizer as CompiledTokenizer

from pipeline.loading.bpe import PRINTED

_MERGES = Path(__file__).with_name("clip_merges.txt.gz")

# Unicode assigns no letters, numbers or spaces to planes 4 to 16.
_PLANES = range(4)


@functools.cache
def clip_vocabulary() -> dict[str, Any]:
    """The vocabulary for `BytePairEncoder`: merges and character classes. Takes 1 s, once in each process."""
    return {"merges": _merges(), **_classes(CompiledTokenizer())}


def write_vocabulary(path: Path) -> None:
    """Writes the vocabulary file of a registered model; the bytes are deterministic (211 kB)."""
    text = json.dumps(clip_vocabulary(), separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode("ascii"), mtime=0))


def _merges() -> list[tuple[int, int]]:
    """The two tokens of which each token from 512 on consists."""
    symbols = [chr(byte) for byte in PRINTED] + [chr(256 + number) for number in range(256 - len(PRINTED))]
    symbols += [f"{symbol}</w>" for symbol in symbols]
    tokens = {symbol: token for token, symbol in enumerate(symbols)}
    merges = []
    with gzip.open(_MERGES, "rt", encoding="utf-8") as file:
        next(file)
        for line in file:
            left, right = line.split()
            merges.append((tokens[left], tokens[right]))
            tokens[left + right] = len(tokens)
    return merges


def _classes(compiled: CompiledTokenizer) -> dict[str, str]:
    """The characters that the compiled tokenizer treats as letters, numbers and spaces.

    Python's own tables may be of another Unicode version.
    """

    def first(text: str) -> int:
        return int(compiled.encode(text)[0])

    # A word is a run of letters, one number, or a run of signs. "a" and "!" have one token at the end of a word and
    # another inside it, so the first token shows whether a character continues the word "a" (a letter) or "!" (a sign).
    letter_alone, sign_alone = first("a"), first("!")
    letters, numbers, spaces = [], [], []
    for code in (code for plane in _PLANES for code in range(plane << 16, (plane + 1) << 16)):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        if not compiled.encode(character):
            spaces.append(code)
        elif first("a" + character) != letter_alone:
            letters.append(code)
        elif first("!" + character) == sign_alone:
            numbers.append(code)
    return {"letters": _ranges(letters), "numbers": _ranges(numbers), "spaces": _ranges(spaces)}


def _ranges(codes: Iterable[int]) -> str:
    """Ascending code points as the content of a regular expression class."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
