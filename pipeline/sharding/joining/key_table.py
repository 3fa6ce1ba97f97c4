"""KeyTable: looks up the row of a key in an on-disk table of hashes.

The table is sorted by hash and memory-mapped: it needs disk (16 bytes per key), not memory. A match is compared with
the key itself, so keys with equal hashes are not confused.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError

_CHUNK_KEYS = 1 << 16
# A bucket is sorted in memory: 2^19 keys are 8 MB, and twice that during the sort.
_BUCKET_KEYS = 1 << 19
_MAX_BUCKETS = 512
_MAX_SEEDS = 4
_ENTRY = np.dtype([("hash", np.uint64), ("row", np.int64)])
_MULTIPLIERS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))


class KeyTable:
    """Finds the rows of keys.

    Args:
        keys: large_string, the key of each row.
        folder: folder for the table.
    Raises:
        InputError: two rows have the same key.
    """

    def __init__(self, keys: pa.LargeStringArray, folder: Path) -> None:
        self._keys = keys
        # If different keys have equal hashes (a probability below 0.03% for 100 million keys), another seed is tried.
        for seed in range(_MAX_SEEDS):
            self._seed = seed
            self._hashes, self._rows = self._build(folder)
            equal = self._rows_with_equal_hashes()
            if equal is None:
                return
            key = keys[equal[0]].as_py()
            if key == keys[equal[1]].as_py():
                raise InputError(
                    f"rows {equal[0]} and {equal[1]} of the index have the same key, {key!r}; "
                    "columns can be joined only to samples with unique keys"
                )
        raise RuntimeError("different keys have equal hashes with every seed")

    def rows(self, keys: pa.LargeStringArray) -> NDArray[np.int64]:
        """[keys] the row of each key; -1 for an unknown key."""
        rows = np.full(len(keys), -1, dtype=np.int64)
        if len(self._hashes) == 0:
            return rows
        hashes = key_hashes(keys, self._seed)
        # Sorted lookups touch each page of the table once.
        order = np.argsort(hashes)
        positions = np.searchsorted(self._hashes, hashes[order])
        positions[positions == len(self._hashes)] = 0
        hits = np.flatnonzero(self._hashes[positions] == hashes[order])
        queries, candidates = order[hits], self._rows[positions[hits]]
        equal = pc.equal(keys.take(pa.array(queries)), self._keys.take(pa.array(candidates)))
        confirmed = equal.to_numpy(zero_copy_only=False).astype(bool)
        rows[queries[confirmed]] = candidates[confirmed]
        return rows

    def _build(self, folder: Path) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """(hashes in ascending order, row of each), both memory-mapped."""
        count = len(self._keys)
        buckets = min(_MAX_BUCKETS, 1 << (max(0, count - 1) // _BUCKET_KEYS).bit_length())
        shift = np.uint64(65 - buckets.bit_length())
        paths = [folder / f"keys.{number}" for number in range(buckets)]
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("wb")) for path in paths]
            for first in range(0, count, _CHUNK_KEYS):
                chunk = self._keys.slice(first, _CHUNK_KEYS)
                entries = np.empty(len(chunk), _ENTRY)
                entries["hash"] = key_hashes(chunk, self._seed)
                entries["row"] = np.arange(first, first + len(chunk))
                entries = entries[np.argsort(entries["hash"], kind="stable")]
                # The top bits of the hash select the bucket, so the concatenated sorted buckets are the sorted table.
                bucket = entries["hash"] >> shift if buckets > 1 else np.zeros(len(chunk), np.uint64)
                edges = np.searchsorted(bucket, np.arange(buckets + 1, dtype=np.uint64))
                for number, file in enumerate(files):
                    file.write(entries[edges[number] : edges[number + 1]].tobytes())
        # Hashes and rows in separate files: searchsorted on a strided array would copy the whole table first.
        with (folder / "keys.hashes").open("wb") as hashes, (folder / "keys.rows").open("wb") as rows:
            for path in paths:
                entries = np.fromfile(path, _ENTRY)
                path.unlink()
                entries = entries[np.argsort(entries["hash"], kind="stable")]
                hashes.write(entries["hash"].tobytes())
                rows.write(entries["row"].tobytes())
        if count == 0:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        return (
            np.memmap(folder / "keys.hashes", np.uint64, mode="r"),
            np.memmap(folder / "keys.rows", np.int64, mode="r"),
        )

    def _rows_with_equal_hashes(self) -> tuple[int, int] | None:
        """Two rows with equal hashes, or None."""
        for first in range(0, len(self._hashes), _CHUNK_KEYS):
            hashes = self._hashes[first : first + _CHUNK_KEYS + 1]
            same = np.flatnonzero(hashes[1:] == hashes[:-1])
            if len(same):
                return int(self._rows[first + same[0]]), int(self._rows[first + same[0] + 1])
        return None


def key_hashes(keys: pa.LargeStringArray, seed: int = 0) -> NDArray[np.uint64]:
    """[keys] a 64-bit hash of each key, vectorised over keys, eight bytes per step."""
    offsets = np.frombuffer(keys.buffers()[1], np.int64)[keys.offset : keys.offset + len(keys) + 1]
    lengths = np.diff(offsets)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(keys) else (0, 0)
    text = np.zeros(last - first + 8, np.uint8)  # the last word of a key may extend beyond its end
    if last > first:
        text[:-8] = np.frombuffer(keys.buffers()[2], np.uint8)[first:last]
    starts = offsets[:-1] - first
    hashes = _mix_bits(lengths.astype(np.uint64) + np.uint64(seed << 32))
    long_enough = np.arange(len(keys))
    for position in range(0, int(lengths.max(initial=0)), 8):
        long_enough = long_enough[lengths[long_enough] > position]
        words = text[(starts[long_enough] + position)[:, None] + np.arange(8)]
        rest = lengths[long_enough] - position
        words[np.arange(8) >= rest[:, None]] = 0
        hashes[long_enough] = _mix_bits(hashes[long_enough] ^ words.view(np.uint64)[:, 0])
    return hashes


def _mix_bits(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mixes the bits of each word bijectively, as in SplitMix64."""
    words = words * _MULTIPLIERS[0]
    words ^= words >> np.uint64(30)
    words = words * _MULTIPLIERS[1]
    words ^= words >> np.uint64(27)
    return words
