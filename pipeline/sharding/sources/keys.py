"""Detection of keys that occur more than once, with 8 bytes of memory per key."""

from __future__ import annotations

from array import array

import numpy as np

from pipeline.counter_rng import text_hash


class RepeatedKeys:
    """Finds repeated keys by their hashes."""

    def __init__(self) -> None:
        self._hashes = array("Q")

    def add(self, key: str) -> None:
        self._hashes.append(text_hash(key))

    def hashes(self) -> frozenset[int]:
        """The hashes of the keys that were added more than once."""
        if not self._hashes:
            return frozenset()
        ordered = np.sort(np.frombuffer(self._hashes, dtype=np.uint64))
        return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
