"""The signatures of all images of a shards artifact: computed once, then cached on this machine.

Threads compute and write blocks of 4,096 images, so that a killed run resumes after the last block, and another check
of the same data (with another radius, or against another data set) reads no image. Memory holds 25 bytes per image; the
rest of the signatures is memory-mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import Artifact
from pipeline.atomic_files import atomic_write
from pipeline.errors import DamagedError, WorkError
from pipeline.leaks.signature import SIGNATURE, State, image_signature
from pipeline.loading.reader import SampleReader
from pipeline.progress import Progress
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.writing.intake import allowed_unreadable
from pipeline.sharding.writing.runner import Stop, StoppedEarlyError, run_in_order

_BLOCK = 4096
_PREFETCH = 256  # number of images prefetched at once from S3
_VERSION = 1  # of `image_signature`: raise it when the signature of an image changes


@dataclass(frozen=True)
class Unreadable:
    """A damaged image, and the reason."""

    row: int
    reason: str


class Signatures:
    """The signatures of a data set by row.

    Attributes:
        pixels: [rows, 2] hash of the pixels; of a damaged image its content hash, so that equal ones are found.
        hashes: [rows] difference hashes.
        states: [rows] values of `State`.
        unreadable: the damaged images.
    """

    def __init__(self, blocks: Sequence[NDArray[np.void]], unreadable: Sequence[Unreadable]) -> None:
        self._blocks = blocks
        self.unreadable = unreadable

        def column(name: str) -> NDArray[Any]:
            return np.concatenate([np.zeros(0, dtype=SIGNATURE)[name], *(block[name] for block in blocks)])

        self.pixels: NDArray[np.uint64] = column("pixels")
        self.hashes: NDArray[np.uint64] = column("hash")
        self.states: NDArray[np.uint8] = column("state")

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.void]:
        """[n] the complete signatures of these rows."""
        signatures = np.empty(len(rows), dtype=SIGNATURE)
        block_of, offset = np.divmod(rows, _BLOCK)
        for block in np.unique(block_of).tolist():
            in_block = block_of == block
            signatures[in_block] = self._blocks[block][offset[in_block]]
        return signatures


def gather_signatures(
    artifact: Artifact,
    index: SampleIndex,
    folder: Path,
    *,
    max_unreadable_share: float,
    threads: int,
    progress: Progress,
    note: str,
) -> Signatures:
    """The signatures of all images of an artifact, cached ones and new ones.

    Args:
        folder: the cache, with one folder per artifact.
        note: describes the work for `progress`.
    Raises:
        WorkError: more than `max_unreadable_share` of the images are damaged; they cannot be checked for leaks.
    """
    cache = folder / f"{artifact.key}-v{_VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(index), _BLOCK)
    missing = [start for start in starts if not _block_path(cache, start).is_file()]
    unreadable: list[Unreadable] = []
    # Blocks with damaged images are not cached: the files may be repaired before the next run.
    uncached: dict[int, NDArray[np.void]] = {}
    reader = SampleReader(artifact, index)
    done = len(index) - sum(min(_BLOCK, len(index) - start) for start in missing)
    bound = allowed_unreadable(max_unreadable_share, len(index))
    work = partial(_block_signatures, reader, index)
    blocks = run_in_order(
        work,
        missing,
        runner="threads",
        writers=threads,
        while_waiting=lambda: progress(step=done, total=len(index), note=note),
    )
    try:
        with closing(blocks):
            for start, (signatures, damaged) in zip(missing, blocks, strict=True):
                unreadable += damaged
                if len(unreadable) > bound:
                    raise WorkError(_too_many(artifact, index, unreadable, max_unreadable_share))
                if damaged:
                    uncached[start] = signatures
                else:
                    with atomic_write(_block_path(cache, start)) as temporary, temporary.open("wb") as file:
                        np.save(file, signatures)
                done += len(signatures)
                progress(step=done, total=len(index), note=note)
    finally:
        reader.close()
    return Signatures([_block(cache, start, uncached) for start in starts], unreadable)


def _too_many(artifact: Artifact, index: SampleIndex, unreadable: Sequence[Unreadable], share: float) -> str:
    return (
        f"{artifact.name}: {len(unreadable):,} or more of its {len(index):,} images cannot be read, more than "
        f"max_unreadable_share={share:g} allows ({unreadable[0].reason}); fix them, or raise the bound"
    )


def _block_path(cache: Path, start: int) -> Path:
    return cache / f"{start // _BLOCK:06d}.npy"


def _block(cache: Path, start: int, uncached: dict[int, NDArray[np.void]]) -> NDArray[np.void]:
    if start in uncached:
        return uncached[start]
    path = _block_path(cache, start)
    try:
        signatures: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise DamagedError(f"{path}: damaged; remove {cache} and check again") from None
    return signatures


# Computes the signatures of the block of images that begins at row `start`, and lists its damaged images.
def _block_signatures(
    reader: SampleReader, index: SampleIndex, start: int, *, stop: Stop
) -> tuple[NDArray[np.void], list[Unreadable]]:
    rows = np.arange(start, min(start + _BLOCK, len(index)), dtype=np.int64)
    signatures = np.zeros(len(rows), dtype=SIGNATURE)
    unreadable = []
    for begin in range(0, len(rows), _PREFETCH):
        if stop():
            raise StoppedEarlyError
        ahead = rows[begin : begin + _PREFETCH]
        reader.prefetch(ahead)
        for offset, row in enumerate(ahead.tolist(), start=begin):
            try:
                signatures[offset] = image_signature(reader.read(row))
            except (DamagedError, ValueError) as error:
                reason = str(error if isinstance(error, DamagedError) else reader.damaged_error(row, str(error)))
                unreadable.append(Unreadable(row, reason))
                signatures[offset]["state"] = State.UNREADABLE
                signatures[offset]["pixels"] = index.content_numbers(slice(row, row + 1))[0]
    return signatures, unreadable
