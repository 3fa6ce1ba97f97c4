"""CLIP's vocabulary, recovered from the compiled tokenizer, as plain data for `bpe.py`.

The compiled tokenizer tells a token's text, and that is enough: a token is made of the two tokens
that byte-pair encoding leaves of its text when only earlier merges are allowed. Where a token is a
part of a character its text is not readable; the bytes of those 278 tokens stand below. They were
found by encoding characters that contain them: what is left of a character's bytes when its readable
tokens are taken away. The tests hold the result against the compiled tokenizer.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from instant_clip_tokenizer import Tokenizer as CompiledTokenizer

from pipeline.loading.bpe import BYTES, FIRST_MERGE, merge

# Bytes, in hex, of the tokens that are not whole characters, by their number.
_PARTS_OF_CHARACTERS = """
    f09f f09f98 e280 f09f92 efb8 f09f91 e29d f09f8f f09f8e f09f87 f09f94 f09f99 f09f93 e29c e299 f09f8c e281 e298
    e0b8 f09fa4 f09f8d f09f90 e29a e383 f09f9a e283 e0a4 e29e e382 e380 f09f87baf09f87 f09fa5 e296 a1efb88f e0b9
    e381 e2808de299 e282 80efb88f e2ad e2a0 e385 e0ae f09fa6 e286 f09f96 f09d f09f97 e0a5 94efb88f f09f95 e2ac e29b
    e28f ec9d f09f87aef09f87 f09f87acf09f87 d8a7d9 e284 f09fa7 f09f87a8f09f87 e297 f09f86 80efb88f e0b2 e0af f09f9b
    e0a6 f09f8e89f09f8e e0b0 ec8a e0b8b2e0b8 a0efb88f eb8b d8a7d8 ec97 e294 f09f87b5f09f87 f09f87aaf09f87 e0b980e0b8
    e0b8ade0b8 ed83 81e0b8 ec84 a1efb88f ec86 ed95 e0b4 e0a8 ebb0 f09d90 ed98 ec95 eca7 ee90 8ceb e295 e1b5
    f09f87b2f09f87 f09f87b3f09f87 e288 e28c a3efb88f ec9a e383bce383 f09d97 e1b4 e69c ebaf b8eb e4b8 e794 ec868ceb
    84e0b8 eca0 e0b3 ec9e ec9c d0bed0 e4ba eab0 ec98 ec868ceb85 b03a f09f85 b3efb88f e697 ec9b e289 f09f87aff09f87
    e0aa e0b899e0b8 e5a4 ed8a e0b1 e0b981e0b8 ec8b ebb9 94efb88f eab9 eba6 b3efb88f e183 ebb0a9ed83 e2a4 84eb8b
    ec868ceb8584eb8b e383b3e383 ebb0a9ed8384ec868ceb8584eb8b f09d98 e0a7 e7a5 95e382 e5ae e287 eb82 e0b5 e293
    b5efb88f e69d efbf a0efb88f e586 eba7 96efb88f e696 82e296 ec84b8eb e5a5 f09d99 ed94 d0b8d0 ec84b8ebb8 e0b6
    8ae381 ec83 e0b7 82e29682e296 eb93 ec82 d0b0d0 eca4 bdefb88f e0b881e0b8 ec96 e0b984e0b8 aceb eab5 ed99 eb8f e0a9
    e382b9e383 eab8 ec88 e0ac f09f87a6f09f87 f09f87b8f09f87 e38395e382 e79c 85efb88f e8aa e585 ed8b 84eb e58f e5b0
    b0efb88f ee84 eab2 ed81 e5ad eab3 8be381 f09f87b9f09f87 ee80 e382a4e383 ebaa f09f87a9f09f87 f09f87a7f09f87
    89efb88f ec9db4ec e4bb e59c e7b5 94eb e987 e5b9 e59b e0bd ec99 e0b884e0b8 efbfbd 9ceb eca3 e3828ae381 ecb0
    f09f87b1f09f87 ee8c b1efb88f e590 e4b9 e5b8 ecb6 eab7 e588 ec9791ec86 e698 a088 f09d92 e7b9 e382b8e383 ed82
    f09d91 a19c eb9d ebb3 95efb88f e981 ecb9 e383b3e382 eb8d 8be382 e7b98be381 e180 8ce3828ae381 9fe38184 e5b1 e0bc
    8ce3828ae3819fe38184 f09d93 e381a8e7b98be381 efbfbd e4bd e58b a688 e699 ebb2 e0ab
"""

# Unicode assigns no letters, numbers or spaces to planes 4 to 16.
_PLANES = range(4)


@functools.cache
def clip_vocabulary() -> dict[str, Any]:
    """What `BytePairEncoder` takes: merges and the classes of characters. Takes 2 s, once a process."""
    compiled = CompiledTokenizer()
    return {"merges": _merges(compiled), **_classes(compiled)}


def write_vocabulary(path: Path) -> None:
    """Writes the vocabulary file that a registered model ships; always the same bytes (211 kB)."""
    text = json.dumps(clip_vocabulary(), separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode("ascii"), mtime=0))


def _merges(compiled: CompiledTokenizer) -> list[tuple[int, int]]:
    """The two tokens that each token from 512 on is made of."""
    parts_of_characters = iter(bytes.fromhex(text) for text in _PARTS_OF_CHARACTERS.split())
    merges: dict[tuple[int, int], int] = {}
    tokens = {byte: token for token, byte in enumerate(BYTES)}
    for token in range(FIRST_MERGE, compiled.start_of_text()):
        text = compiled.decode([token])
        content = next(parts_of_characters) if "\ufffd" in text else text.removesuffix(" ").encode()
        start = [tokens[byte] for byte in content]
        if text.endswith(" "):
            start[-1] += 256
        left, right = merge(start, merges)
        merges[left, right] = token
    return list(merges)


def _classes(compiled: CompiledTokenizer) -> dict[str, str]:
    """Which characters the compiled tokenizer takes for letters, numbers and spaces.

    Python's own tables are those of its Unicode version, and the two need not have the same.
    """

    def first(text: str) -> int:
        return int(compiled.encode(text)[0])

    letter_ends, sign_ends = first("a"), first("!")
    letters, numbers, spaces = [], [], []
    for code in (code for plane in _PLANES for code in range(plane << 16, (plane + 1) << 16)):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        if not compiled.encode(character):
            spaces.append(code)
        elif first("a" + character) != letter_ends:
            letters.append(code)
        elif first("!" + character) == sign_ends:
            numbers.append(code)
    return {"letters": _ranges(letters), "numbers": _ranges(numbers), "spaces": _ranges(spaces)}


def _ranges(codes: Iterable[int]) -> str:
    """Code points in ascending order as the inside of a regular expression class."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
