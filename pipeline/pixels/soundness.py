"""Strict checks of image files: other readers are less tolerant than Pillow.

torchvision's PNG decoder, which readers of WebDataset tars often use, crashes the process on a PNG without an end mark
or without the checksum of its compressed stream; strict callers of libjpeg-turbo treat its warnings as errors. Such a
file is not stored unchanged.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from pipeline.pixels.jpeg import JPEG, jpeg_pixels, plain_frame

PNG = b"\x89PNG\r\n\x1a\n"
# Colour type of the header -> samples per pixel.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# The seven passes of an interlaced PNG (Adam7): first row, first column, row step, column step.
_INTERLACED = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_AT_ONCE = 1 << 20  # bytes decompressed at a time; bounds memory


def png_fault(data: bytes) -> str | None:
    """The first fault in a PNG's chunks, their checksums or its compressed pixels; None: no fault.

    Data after the end mark of the stream and chunks after IEND are allowed, since decoders ignore them.
    """
    whole, at, stream, header = memoryview(data), len(PNG), zlib.decompressobj(), b""
    remaining = length = -1
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + size
        if end > len(data):
            return f"the PNG ends inside its chunk at byte {at}"
        if zlib.crc32(whole[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"the PNG's chunk at byte {at} is damaged"
        if kind == b"IHDR":
            header = data[at + 8 : end - 4]
            if len(header) != 13 or header[9] not in _CHANNELS:
                return "the PNG's header is damaged"
            remaining = length = _raw_length(header)
        elif kind == b"IDAT" and not stream.eof:
            if length < 0:
                return "the PNG has no header before its pixels"
            body = bytes(whole[at + 8 : end - 4])
            try:
                while body and remaining >= 0 and not stream.eof:
                    remaining -= len(stream.decompress(body, _AT_ONCE))
                    body = stream.unconsumed_tail
            except zlib.error as error:
                return f"the PNG's compressed pixels are damaged ({error})"
        elif kind == b"IEND":
            remaining -= len(stream.flush())
            if not stream.eof:
                return "the PNG's compressed pixels end early"
            return None if remaining == 0 else "the PNG has fewer or more pixels than its header says"
        at = end
    return "the PNG ends without its end mark"


def _raw_length(header: bytes) -> int:
    """Uncompressed size of the pixels in bytes, including one filter byte in each row."""
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits = header[8] * _CHANNELS[header[9]]
    passes = _INTERLACED if header[12] else ((0, 0, 1, 1),)
    total = 0
    for top, left, down, across in passes:
        rows, columns = -((top - height) // down), -((left - width) // across)
        total += rows * (1 + (columns * bits + 7) // 8) if rows > 0 and columns > 0 else 0
    return total


def webp_fault(data: bytes) -> str | None:
    """A fault in the length that a WebP states; None: no fault."""
    return "the WebP ends early" if 8 + int.from_bytes(data[4:8], "little") > len(data) else None


def jpeg_pixels_or_fault(data: bytes) -> tuple[NDArray[np.uint8] | None, str | None]:
    """The pixels [H, W, 1 or 3] of a JPEG and its fault, of which at most one is not None.

    Both are None for a JPEG without a known fault that `plain_frame` refuses, e.g. CMYK or rotated by its EXIF.
    """
    frame = plain_frame(data)
    if frame is None:
        return None, None if _has_sound_header(data) else "the JPEG has stray bytes or damaged segments in its header"
    pixels = jpeg_pixels(data, frame, frame.colours)
    return pixels, None if pixels is not None else "the JPEG's compressed pixels are damaged or followed by stray bytes"


def _has_sound_header(data: bytes) -> bool:
    """Whether every segment up to the first scan begins where the previous one ends."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0x00:
        if data[at + 1] == 0xDA:
            return data.startswith(JPEG)
        is_fill = data[at + 1] == 0xFF
        at += 1 if is_fill else 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return False
