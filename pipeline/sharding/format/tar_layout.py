"""The layout of a tar: for each member a header of one block and then its data, filled up to whole blocks; two empty
blocks at the end.

Source: POSIX.1-1988 (ustar), and tar(5).
"""

from __future__ import annotations

BLOCK = 512
"""Bytes of a block; a member's header begins one block before its data."""
END_BYTES = 2 * BLOCK
"""Bytes of the mark that ends an archive."""

# The fields of a header. Numbers are octal digits and NUL.
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
"""`MAGIC` of POSIX; GNU's tar writes "ustar " there."""


def padding(size: int) -> int:
    """Zeros between a member's data of `size` bytes and the next header."""
    return -size % BLOCK


def is_ustar(head: bytes) -> bool:
    """Whether a file's first block has the magic of POSIX or of GNU."""
    return head[MAGIC][:5] == USTAR[:5]
