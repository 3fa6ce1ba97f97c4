"""The image formats that Tutelage reads, recognised by their first bytes.

The file name is ignored: a `.png` that contains a JPEG is a JPEG. Other formats are not passed to a decoder, because
some of Pillow's plug-ins start other programs (EPS: Ghostscript) or are rarely tested.
"""

from __future__ import annotations

from pipeline.pixels.decode import FORMATS as FORMATS
from pipeline.pixels.jpeg import JPEG
from pipeline.pixels.soundness import PNG

HEAD_BYTES = 64
"""Number of leading bytes that `format_of` needs."""

_SIGNATURES = (
    (JPEG, "JPEG"),
    (PNG, "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"qoif", "QOI"),
)


def format_of(head: bytes) -> str | None:
    """Pillow's name of a file's format, from its first `HEAD_BYTES` bytes; None if it is not in `FORMATS`.

    The name is "JPEG" also for an MPO, which begins like one.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        brands = head[8 : min(len(head), int.from_bytes(head[:4], "big"))]
        return "AVIF" if any(brands[at : at + 4] in (b"avif", b"avis") for at in range(0, len(brands), 4)) else None
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456fy" and head[2:3] in b" \t\r\n\v\f#":
        return "PPM"
    return None
