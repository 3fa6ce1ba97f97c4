"""Recognises files of an unexpected type by their first bytes, so that errors can name the type and the remedy.

Examples: a Git LFS pointer, a web page from a failed download, a zip archive named .tar.
"""

from __future__ import annotations

import re

from pipeline.errors import InputError
from pipeline.pixels.formats import format_of
from pipeline.sharding.format.tar_layout import BLOCK, is_ustar

HEAD_BYTES = BLOCK
"""Number of first bytes of a file that `file_type` examines."""

_STARTS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer and not the file: fetch it with `git lfs pull`"),
    (b"# xet version", "a Xet pointer and not the file: fetch it with git-xet"),
    (b"/annex/objects/", "a git-annex pointer and not the file: fetch it with `git annex get`"),
    (b"outs:\n", "a DVC pointer and not the file: fetch it with `dvc pull`"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it"),
    (b"\xff\xfe\0\0", "text in UTF-32: save it as UTF-8"),
    (b"\0\0\xfe\xff", "text in UTF-32: save it as UTF-8"),
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
# The brands of HEIF with HEVC inside, as phones write it; "mif1" and "msf1" are those of any HEIF.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")  # A text may begin with "BZh9" alone.
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<script")


def compression_of(head: bytes) -> str | None:
    """The compression format of a file with these first bytes; None if it is not a known one."""
    if _BZIP2.match(head):
        return "bzip2"
    return next((name for start, name in _COMPRESSED if head.startswith(start)), None)


def file_type(head: bytes) -> str | None:
    """A description of the type of a file with these first bytes, and what to do; None if the type is unknown."""
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
        return "a web page (HTML), which a failed download leaves: fetch the file again"
    if text.startswith(b"<?xml") and b"<error>" in head.lower():
        return "an error message in XML, as S3 sends it: fetch the file again"
    if _is_wide(head):
        return "text in UTF-16: save it as UTF-8"
    if head[4:8] == b"ftyp" and format_of(head) is None:
        if head[8:12] == b"crx ":
            return "a camera raw photo (CR3): convert it to JPEG"
        return "a HEIC photo: convert it to JPEG" if head[8:12] in _HEIF_BRANDS else "a video"
    # A table may begin with "BM" or "P1" too.
    image = format_of(head) if b"\0" in head else None
    return None if image is None else f"an image ({image})"


def refuse_other_type(url: str, head: bytes) -> None:
    """Raises an InputError if a file that should be text or a table is of another known type; it says what to do."""
    what = file_type(head)
    if what is not None:
        raise InputError(f"{url}: it is {what}")


def _is_wide(head: bytes) -> bool:
    """Whether these first bytes are text with two bytes per character and no byte-order mark."""
    pairs = head[: len(head) // 2 * 2]
    if len(pairs) < 8:
        return False
    first, second = pairs[::2], pairs[1::2]
    empty, other = (first, second) if not any(first) else (second, first)
    return not any(empty) and all(byte >= 9 for byte in other)
