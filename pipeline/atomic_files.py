"""Atomic writes: a file has its name only after it was written completely."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.owners import owned_name

_MAX_NAME_BYTES = 64


@contextmanager
def atomic_write(path: Path, *, aside: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary file, which is renamed to `path` at the end of the block, or removed if the block raises.

    Its name identifies its owner process, so that left-over files can be removed (owners.py).

    Args:
        aside: folder of the temporary file, on the same file system as `path`; None: that of `path`. Both are created.
        durable: flush the bytes to the disk before the rename, so that a power cut leaves no empty file.
    """
    name = owned_name() if aside is not None else f".{_start_of(path.name)}.{owned_name()}"
    temporary = (aside or path.parent) / name
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        if durable:
            flush_to_disk(temporary)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _start_of(name: str) -> str:
    """The start of a file's name that a temporary name can contain; a file system allows 255 bytes."""
    return os.fsdecode(os.fsencode(name)[:_MAX_NAME_BYTES])


def flush_to_disk(path: Path) -> None:
    """Flushes the bytes of a file, or the names in a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
