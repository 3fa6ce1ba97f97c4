"""What a file is that is not what its name says: what a person finds who looks at its first bytes.

A pointer of Git LFS, a web page that a download gave, a zip archive under the name of a tar: each is said, with what to
do, since "not a tar" leaves the reader to find out.
"""

from __future__ import annotations

import re

from pipeline.errors import InputError
from pipeline.pixels.formats import format_of
from pipeline.sharding.format.tar_layout import BLOCK, is_ustar

HEAD_BYTES = BLOCK
"""How many of a file's first bytes `recognised` looks at."""

_STARTS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer and not the file: fetch it with `git lfs pull`"),
    (b"# xet version", "a Xet pointer and not the file: fetch it with git-xet"),
    (b"/annex/objects/", "a git-annex pointer and not the file: fetch it with `git annex get`"),
    (b"outs:\n", "a DVC pointer and not the file: fetch it with `dvc pull`"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it"),
    (b"\xff\xfe", "text in UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"%PDF-", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x93NUMPY", "a NumPy array"),
)
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
_BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")  # "BZh9" alone begins a text, too
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<script")


def compression_of(head: bytes) -> str | None:
    """What a file with these first bytes is compressed with; None: nothing that is known."""
    if _BZIP2.match(head):
        return "bzip2"
    return next((name for start, name in _COMPRESSED if head.startswith(start)), None)


def recognised(head: bytes) -> str | None:
    """What a file with these first bytes is, in words that say what to do; None: it is not known."""
    for start, what in _STARTS:
        if head.startswith(start):
            return what
    compression = compression_of(head)
    if compression is not None:
        return f"compressed ({compression}): decompress it first"
    if is_ustar(head):
        return "a tar"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if text.startswith(_WEB_PAGE):
        return "a web page (HTML), as a download leaves it that was refused: fetch the file again"
    if text.startswith(b"<?xml") and b"<error>" in head.lower():
        return "an error message in XML, as S3 gives it: fetch the file again"
    if _is_wide(head):
        return "text in UTF-16: save it as UTF-8"
    # A table may begin with "BM" or "P1" too.
    image = format_of(head) if b"\0" in head else None
    return None if image is None else f"an image ({image})"


def refuse_recognised(url: str, head: bytes) -> None:
    """Refuses a file that should be text or a table and is known to be something else.

    Raises:
        InputError: what it is, and what to do.
    """
    what = recognised(head)
    if what is not None:
        raise InputError(f"{url}: it is {what}")


def _is_wide(head: bytes) -> bool:
    """Whether it is text of two bytes a character, without a mark that says so."""
    some = head[: len(head) // 2 * 2]
    if len(some) < 8:
        return False
    first, second = some[::2], some[1::2]
    empty, other = (first, second) if not any(first) else (second, first)
    return not any(empty) and all(byte >= 9 for byte in other)
