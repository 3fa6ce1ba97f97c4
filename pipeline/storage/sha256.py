"""SHA-256 of files and objects that are too large to read at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

_READ_BYTES = 8 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ranges_sha256(read: Callable[[int, int], bytes], size: int) -> str:
    """SHA-256 of `size` bytes, in hex.

    Args:
        read: read(start, length) returns bytes [start, start + length), e.g. of an S3 object.
    """
    hasher = hashlib.sha256()
    for start in range(0, size, _READ_BYTES):
        hasher.update(read(start, min(_READ_BYTES, size - start)))
    return hasher.hexdigest()
