"""The upper rows of a JPEG, for crops that need no more of it.

Entropy coding makes a JPEG readable from the top only, and what lies below a crop is then work for nothing: a tenth of
a photograph, in the mean over the crops that training draws. simplejpeg cannot be told to stop; so it is given the
same file with a smaller height in its frame header, and says of a sound file that bytes were left over.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_START_OF_SCAN = 0xDA
# Progressive, lossless and arithmetic-coded frames: a sequential one will not come.
_OTHERS = frozenset({*range(0xC2, 0xD0)} - {0xC4, 0xC8, 0xCC})
# Smooth upsampling of a row's colours looks at the row below it.
_MARGIN = 2


class Frame(NamedTuple):
    """The picture's size in pixels, as a sequential JPEG's frame header says it, and where it says the height."""

    height: int
    width: int
    place: int


def sequential_frame(data: bytes) -> Frame | None:
    """The frame of a sequential JPEG of one or three colours in one scan, its header sound up to that; else None."""
    place, frame, colours = 2, None, 0
    while place + 10 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == _START_OF_SCAN:
            return frame if data[place + 4] == colours else None
        if kind in _OTHERS:
            return None
        if kind in _SEQUENTIAL_FRAMES:
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            colours = data[place + 9]
            if colours not in (1, 3) or not height or not width:
                return None
            frame = Frame(height, width, place + 5)
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def upper_rows(data: bytes, frame: Frame, rows: int, channels: int, factor: int) -> NDArray[np.uint8] | None:
    """At least the first `rows` rows of a sequential JPEG, to the bit as in the whole, uint8 [H, W, channels].

    Args:
        data: a JPEG file.
        frame: its frame.
        rows: how many are needed, at the scale of `factor`.
        channels: 3 for RGB, 1 for grey.
        factor: the scale, 1, 2, 4 or 8 pixels of the file to one of the result.
    Returns:
        None where only decoding the whole file can tell: it is damaged.
    """
    height = min(frame.height, (rows + _MARGIN) * factor)
    pixels = np.empty((-(-height // factor), -(-frame.width // factor), channels), np.uint8)
    shortened = bytearray(data)
    shortened[frame.place : frame.place + 2] = height.to_bytes(2, "big")
    try:
        simplejpeg.decode_jpeg(
            shortened,
            "GRAY" if channels == 1 else "RGB",
            min_height=pixels.shape[0],
            min_width=pixels.shape[1],
            buffer=pixels,
        )
    except ValueError as error:
        # libjpeg-turbo decodes to the end and then gives the first of its warnings; in a sound header it has none.
        if "extraneous bytes before marker" not in str(error):
            return None
    return pixels
