"""Counter-based random numbers: they depend on their purpose, not on the numbers drawn before.

A number is a pure function of a seed and a few counters: (seed, epoch) for an order, (seed, step) for a batch, (seed,
epoch, sample) for an augmentation. It can be drawn again on any worker in any order, so the state of a loader is only
its step. The number for a text (a key, a caption, a content group) is its hash: `text_hash`.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_WORD = 2**64 - 1
# Of Philox4x64 (Salmon 2011): the multipliers of a round, and what is added to the key after it.
_PHILOX_FACTORS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_PHILOX_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_PHILOX_ROUNDS = 10
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A NumPy generator for one purpose and one set of counters.

    Args:
        seed: the run's seed.
        purpose: a word that distinguishes uses of the same counters, e.g. "order".
        counters: e.g. epoch, step or node.
    """
    key = np.frombuffer(_key(seed, purpose, counters), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def integer(seed: int, purpose: str, *counters: int) -> int:
    """The first `integers(0, 2**63)` of `generator`, in a fifth of its time: NumPy takes 40 us to make a Philox.

    Its first number is the upper 63 bits of the first word of the first block, whose counter is 1.
    """
    key = _key(seed, purpose, counters)
    first_key, second_key = int.from_bytes(key[:8], sys.byteorder), int.from_bytes(key[8:], sys.byteorder)
    first, second, third, fourth = 1, 0, 0, 0
    for _ in range(_PHILOX_ROUNDS):
        low, high = _PHILOX_FACTORS[0] * first, _PHILOX_FACTORS[1] * third
        first, second = (high >> 64) ^ second ^ first_key, high & _WORD
        third, fourth = (low >> 64) ^ fourth ^ second_key, low & _WORD
        first_key, second_key = (first_key + _PHILOX_STEPS[0]) & _WORD, (second_key + _PHILOX_STEPS[1]) & _WORD
    return first >> 1


def uniforms(seed: int, purpose: str, epoch: int, ids: NDArray[np.int64], columns: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) for each sample, [len(ids), columns]; they do not depend on the batch.

    Source: SplitMix64's output function (Steele, Lea, Flood 2014) over a keyed counter.
    """
    base = np.uint64(integer(seed, purpose, epoch))
    with np.errstate(over="ignore"):
        keyed = _mix(ids.astype(np.uint64) * _GOLDEN + base)
        cells = keyed[:, None] + np.arange(1, columns + 1, dtype=np.uint64)[None, :] * _GOLDEN
        return (_mix(cells) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def text_hash(text: str, *, digest_bytes: int = 64, byteorder: Literal["big", "little"] = "big") -> int:
    """64 bits of a text: the first eight bytes of its BLAKE2b digest as an unsigned number.

    The digest length is a parameter of BLAKE2b, so each length gives another hash. Three forms are part of what is
    stored, so none of them may change: (64, "big") orders samples in their split and recognises items, captions and
    keys in listings and deltas; (8, "big") draws the split of a content group; (8, "little") draws the held-out
    samples of an ontology and numbers its contents and captions.

    Args:
        text: may contain lone surrogates, as file names that are not UTF-8 do.
        digest_bytes: length of the digest, 8 to 64.
        byteorder: byte order in which its first eight bytes are read.
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=digest_bytes).digest()
    return int.from_bytes(digest[:8], byteorder)


def _key(seed: int, purpose: str, counters: tuple[int, ...]) -> bytes:
    text = f"{seed}/{purpose}/" + "/".join(str(int(counter)) for counter in counters)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))
