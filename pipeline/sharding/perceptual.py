"""Near-duplicates: a 64-bit difference hash of what an image looks like, and all pairs of hashes that are near.

The hash says, for an image scaled to 9x8 grey cells, whether each cell is darker than its right neighbour; it stays
nearly the same under scaling, re-encoding and a change of brightness. It is made of integers only, so that it is the
same on every machine.

Two hashes within a radius r differ in at most r bits. Cut into r + m blocks, at least m blocks of them are equal:
so for each choice of m blocks the hashes are sorted by these, and only neighbours are compared. The cost grows with
the number of hashes, not with its square (Manku, Jain, Das Sarma 2007).
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 64
_MOST_EQUAL_BLOCKS = 3


def difference_hash(image: Image.Image) -> int:
    """64 bits, row by row: a cell of 8x9 grey ones is darker than the one to its right."""
    grey = image if image.mode == "L" else image.convert("L")
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes(), "big")


def near_pairs(hashes: NDArray[np.uint64], radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of hashes that differ in at most `radius` bits, as places (left < right), sorted.

    Args:
        hashes: [n], all different, n < 2**31.
    """
    pairs = [np.empty(0, dtype=np.int64)]
    for mask in _masks(len(hashes), radius):
        keys = hashes & mask
        order = np.argsort(keys)
        keys = keys[order]
        distance = 1
        starts = np.flatnonzero(keys[:-1] == keys[1:])
        while starts.size:
            one, other = order[starts], order[starts + distance]
            near = np.bitwise_count(hashes[one] ^ hashes[other]) <= radius
            one, other = one[near], other[near]
            pairs.append(np.minimum(one, other) << 32 | np.maximum(one, other))
            distance += 1
            starts = starts[starts + distance < len(keys)]
            starts = starts[keys[starts] == keys[starts + distance]]
    found = np.unique(np.concatenate(pairs))
    return found >> 32, found & 0xFFFFFFFF


def _masks(count: int, radius: int) -> list[np.uint64]:
    """The bits to be equal, for each choice of blocks; so many blocks that few hashes agree by chance."""
    wanted = math.log2(max(count, 2))
    equal = next((m for m in range(1, _MOST_EQUAL_BLOCKS) if BITS * m / (radius + m) >= wanted), _MOST_EQUAL_BLOCKS)
    edges = [BITS * block // (radius + equal) for block in range(radius + equal + 1)]
    blocks = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(blocks, equal)]
