"""The looks of all images of a shards artifact: read, decoded and looked at once, then kept on this machine.

Parts of 4,096 images are made in threads and written aside, so that a run that was killed goes on there, and another
check of the same data (another radius, another data set beside it) reads no image. Memory holds 25 bytes an image;
the rest of the looks is mapped.
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
from pipeline.errors import DamagedError, WorkError
from pipeline.leaks.look import LOOK, State, look_at
from pipeline.loading.reader import SampleReader
from pipeline.progress import Progress
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.writing.intake import allowed_unreadable
from pipeline.sharding.writing.runner import Stop, StoppedEarlyError, each
from pipeline.whole_files import written_whole

_PART = 4096
_AHEAD = 256  # images that are asked for at once where they lie in S3
_VERSION = 1  # of `look_at`: raise it when the same image gets another look


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be looked at, and why."""

    row: int
    reason: str


class Looks:
    """The looks of a data set by row.

    Attributes:
        pixels: [rows, 2] hash of the pixels; of an unreadable image its content hash, so that equal ones are found.
        hashes: [rows] difference hashes.
        states: [rows] numbers of `State`.
        unreadable: those that could not be looked at.
    """

    def __init__(self, parts: Sequence[NDArray[np.void]], unreadable: Sequence[Unreadable]) -> None:
        self._parts = parts
        self.unreadable = unreadable

        def column(name: str) -> NDArray[Any]:
            return np.concatenate([np.zeros(0, dtype=LOOK)[name], *(part[name] for part in parts)])

        self.pixels: NDArray[np.uint64] = column("pixels")
        self.hashes: NDArray[np.uint64] = column("hash")
        self.states: NDArray[np.uint8] = column("state")

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.void]:
        """[n] the whole looks of these rows."""
        found = np.empty(len(rows), dtype=LOOK)
        part_of, place = np.divmod(rows, _PART)
        for part in np.unique(part_of).tolist():
            here = part_of == part
            found[here] = self._parts[part][place[here]]
        return found


def gather_looks(
    artifact: Artifact,
    index: SampleIndex,
    folder: Path,
    *,
    max_unreadable_share: float,
    threads: int,
    progress: Progress,
    note: str,
) -> Looks:
    """The looks of all images of an artifact, those that are kept and those that are made now.

    Args:
        folder: where looks are kept; a folder an artifact is made in it.
        note: what is being done, for `progress`.
    Raises:
        WorkError: a larger share of the images cannot be read: not having seen them, nobody can call them clean.
    """
    kept = folder / f"{artifact.key}-v{_VERSION}"
    kept.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(index), _PART)
    missing = [start for start in starts if not _place(kept, start).is_file()]
    unreadable: list[Unreadable] = []
    # What could not be read may be mended tomorrow: such a part is used, and not kept.
    passing: dict[int, NDArray[np.void]] = {}
    reader = SampleReader(artifact, index)
    done = len(index) - sum(min(_PART, len(index) - start) for start in missing)
    bound = allowed_unreadable(max_unreadable_share, len(index))
    work = partial(_look_at_part, reader, index)
    parts = each(
        work,
        missing,
        runner="threads",
        writers=threads,
        while_waiting=lambda: progress(step=done, total=len(index), note=note),
    )
    try:
        with closing(parts):
            for start, (looks, bad) in zip(missing, parts, strict=True):
                unreadable += bad
                if len(unreadable) > bound:
                    raise WorkError(_too_many(artifact, index, unreadable, max_unreadable_share))
                if bad:
                    passing[start] = looks
                else:
                    with written_whole(_place(kept, start)) as aside, aside.open("wb") as file:
                        np.save(file, looks)
                done += len(looks)
                progress(step=done, total=len(index), note=note)
    finally:
        reader.close()
    return Looks([_part(kept, start, passing) for start in starts], unreadable)


def _too_many(artifact: Artifact, index: SampleIndex, unreadable: Sequence[Unreadable], share: float) -> str:
    return (
        f"{artifact.uri}: {len(unreadable):,} or more of its {len(index):,} images cannot be read, more than "
        f"max_unreadable_share={share:g} allows ({unreadable[0].reason}); mend them, or raise the bound"
    )


def _place(kept: Path, start: int) -> Path:
    return kept / f"{start // _PART:06d}.npy"


def _part(kept: Path, start: int, passing: dict[int, NDArray[np.void]]) -> NDArray[np.void]:
    if start in passing:
        return passing[start]
    path = _place(kept, start)
    try:
        looks: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise DamagedError(f"{path}: not what was written; remove {kept} and check again") from None
    return looks


def _look_at_part(
    reader: SampleReader, index: SampleIndex, start: int, *, stop: Stop
) -> tuple[NDArray[np.void], list[Unreadable]]:
    rows = np.arange(start, min(start + _PART, len(index)), dtype=np.int64)
    looks = np.zeros(len(rows), dtype=LOOK)
    unreadable = []
    for begin in range(0, len(rows), _AHEAD):
        if stop():
            raise StoppedEarlyError
        ahead = rows[begin : begin + _AHEAD]
        reader.prefetch(ahead)
        for place, row in enumerate(ahead.tolist(), start=begin):
            try:
                looks[place] = look_at(reader.read(row))
            except (DamagedError, ValueError) as error:
                said = str(error if isinstance(error, DamagedError) else reader.damaged(row, str(error)))
                unreadable.append(Unreadable(row, said))
                looks[place]["state"] = State.UNREADABLE
                looks[place]["pixels"] = index.content_numbers(slice(row, row + 1))[0]
    return looks, unreadable
