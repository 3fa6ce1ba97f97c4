"""Near-duplicates: a 64-bit perceptual difference hash of an image, and the search for all near pairs of hashes.

The image is scaled to 9x8 grey cells; each bit is 1 if a cell is darker than its right neighbour. The hash changes
little under scaling, re-encoding and a change of brightness. It uses integer arithmetic only, so that it is the same
on every machine.

Two hashes within a radius r differ in at most r bits. If they are divided into r + m blocks, at least m blocks are
equal: for each choice of m blocks the hashes are sorted by these blocks, and only those that agree are compared. The
cost grows with the number of hashes, not with its square (Manku, Jain, Das Sarma 2007). The bits of real images have
different entropies: in a white margin nearly all are 0. So a block is not a run of adjacent bits: the bits are dealt
to the blocks in the order of their entropy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PositionPairs: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]

BITS = 64
_MAX_EQUAL_BLOCKS = 3  # limit on m, see `_blocks`
_MAX_PAIRS_AT_ONCE = 1 << 20  # pairs that are compared at once: 40 MB
_ENTROPY_SAMPLE = 100_000  # hashes from which the entropy of each bit is estimated


def difference_hash(image: Image.Image) -> int:
    """The 64-bit hash, row by row: a bit is 1 if a grey cell is darker than its right neighbour."""
    grey = image if image.mode == "L" else image.convert("L")
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes(), "big")


def near_pairs(hashes: NDArray[np.uint64], radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of hashes that differ in at most `radius` bits, as positions (left < right), sorted.

    Args:
        hashes: [n], n < 2**31.
    """
    batches = [np.empty(0, dtype=np.int64)]
    for mask, skipped in _choices(hashes, hashes, radius):
        for first, second in _agreeing_within(hashes & mask):
            near, _ = _near(hashes[first] ^ hashes[second], radius, skipped)
            first, second = first[near], second[near]
            batches.append(np.minimum(first, second) << 32 | np.maximum(first, second))
    pairs = np.sort(np.concatenate(batches))
    return pairs >> 32, pairs & 0xFFFFFFFF


def pairs_between(
    left: NDArray[np.uint64], right: NDArray[np.uint64], radius: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
    """The pairs of a left and a right hash that differ in at most `radius` bits, each pair once.

    Yields:
        Positions in `left`, positions in `right`, and the numbers of different bits; in batches of pairs, unsorted.
    """
    for mask, skipped in _choices(left, right, radius):
        for left_positions, right_positions in _agreeing(left & mask, right & mask):
            near, distance = _near(left[left_positions] ^ right[right_positions], radius, skipped)
            if near.size:
                yield left_positions[near], right_positions[near], distance


def _near(
    differences: NDArray[np.uint64], radius: int, skipped: Sequence[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The positions of near pairs that differ in every skipped block, and their numbers of different bits.

    Args:
        differences: [pairs] the bits in which the two hashes of a pair differ.
    """
    distance = np.bitwise_count(differences)
    near = np.flatnonzero(distance <= radius)
    for block in skipped:
        near = near[(differences[near] & block) != 0]
    return near, distance[near]


def _agreeing(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> Iterator[_PositionPairs]:
    """The positions of equal values in `left` and `right`; about `_MAX_PAIRS_AT_ONCE` pairs at a time."""
    left_order, right_order = np.argsort(left), np.argsort(right)
    wanted, ascending = left[left_order], right[right_order]
    first = np.searchsorted(ascending, wanted, "left")
    yield from _expand(left_order, right_order, first, np.searchsorted(ascending, wanted, "right") - first)


def _agreeing_within(values: NDArray[np.uint64]) -> Iterator[_PositionPairs]:
    """Like `_agreeing`, for pairs of positions in one array."""
    order = np.argsort(values)
    ascending = values[order]
    # Few values occur more than once; only runs of equal values are examined.
    runs = np.flatnonzero(np.append(ascending[1:] == ascending[:-1], False))
    ends = np.searchsorted(ascending, ascending[runs], "right")
    yield from _expand(order[runs], order, runs + 1, ends - runs - 1)


def _expand(
    left: NDArray[np.int64], right: NDArray[np.int64], first: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[_PositionPairs]:
    """Yields every pair of an element i of `left` and an element of `right[first[i] : first[i] + counts[i]]`."""
    matched = np.flatnonzero(counts)
    left, first, counts = left[matched], first[matched], counts[matched]
    ends = np.cumsum(counts)
    start = done = 0
    while start < len(counts):
        stop = max(start + 1, int(np.searchsorted(ends, done + _MAX_PAIRS_AT_ONCE, "right")))
        here = counts[start:stop]
        # The concatenation of first, first + 1, ... for each element of `left`.
        begins = first[start:stop] - (ends[start:stop] - here - done)
        yield np.repeat(left[start:stop], here), right[np.repeat(begins, here) + np.arange(here.sum())]
        done = int(ends[stop - 1])
        start = stop


def _choices(
    left: NDArray[np.uint64], right: NDArray[np.uint64], radius: int
) -> Iterator[tuple[np.uint64, list[np.uint64]]]:
    """Yields, for each choice of blocks that must be equal, a mask of their bits, and the skipped blocks.

    The skipped blocks are the unchosen ones before the last chosen one. A pair that agrees in more blocks than are
    chosen agrees in those of several choices; requiring that it differs in all skipped blocks reports it only once, for
    the first of these choices.
    """
    blocks = _blocks(left, right, radius)
    for chosen in combinations(range(len(blocks)), len(blocks) - radius):
        mask = np.bitwise_or.reduce([blocks[block] for block in chosen])
        yield mask, [blocks[block] for block in range(chosen[-1]) if block not in chosen]


def _blocks(left: NDArray[np.uint64], right: NDArray[np.uint64], radius: int) -> list[np.uint64]:
    """The bits of each of `radius` + m blocks, with m large enough that few hashes agree in m blocks by chance."""
    entropies = np.minimum(_entropies(left), _entropies(right))
    needed_bits = math.log2(max(len(left), len(right), 2))
    choices = range(1, _MAX_EQUAL_BLOCKS)
    equal = next((m for m in choices if entropies.sum() * m / (radius + m) >= needed_bits), _MAX_EQUAL_BLOCKS)
    blocks = [np.uint64(0)] * (radius + equal)
    for rank, bit in enumerate(np.argsort(-entropies, kind="stable").tolist()):
        blocks[rank % len(blocks)] |= np.uint64(1 << bit)
    return blocks


def _entropies(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """[64] collision entropy of each bit: 1 if it is set in half of the hashes, 0 if it is the same in all."""
    if not len(hashes):
        return np.zeros(BITS)
    sample = hashes[:: -(-len(hashes) // _ENTROPY_SAMPLE)]
    fraction_set = np.array([np.mean((sample >> np.uint64(bit)) & np.uint64(1)) for bit in range(BITS)])
    return -np.log2(fraction_set**2 + (1 - fraction_set) ** 2)
