"""The layout of a tar: for each member a header of one block and then its data, padded to whole blocks; two zero
blocks at the end.

Source: POSIX.1-1988 (ustar), and tar(5).
"""

from __future__ import annotations

BLOCK = 512
"""Bytes of a block; a member's header begins one block before its data."""
END_BYTES = 2 * BLOCK
"""Bytes of the end mark of an archive."""

# The fields of a header. Numbers are octal digits followed by NUL.
NAME = slice(0, 100)
MODE = slice(100, 108)
USER = slice(108, 116)
GROUP = slice(116, 124)
SIZE = slice(124, 136)
TIME = slice(136, 148)
CHECKSUM = slice(148, 156)
KIND = slice(156, 157)
MAGIC = slice(257, 263)
VERSION = slice(263, 265)
PREFIX = slice(345, 500)

USTAR = b"ustar\0"
"""The `MAGIC` of POSIX; GNU tar writes "ustar " instead."""


def padding(size: int) -> int:
    """Number of zero bytes between a member's data of `size` bytes and the next header."""
    return -size % BLOCK


def is_ustar(head: bytes) -> bool:
    """Whether a file's first block has the magic of POSIX or of GNU."""
    return head[MAGIC][:5] == USTAR[:5]
