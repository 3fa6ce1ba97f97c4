"""The upper rows of a JPEG, for crops that need no more of it.

Entropy coding makes a JPEG readable from the top only, and what lies below a crop is then work for nothing: a tenth of
a photograph, in the mean over the crops that training draws. simplejpeg cannot be told to stop; so it is given the
same file with a smaller height in its frame header, and says of a sound file that bytes were left over.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
# Progressive, lossless and arithmetic-coded frames, and the start of a scan: a sequential frame will not come.
_OTHERS = frozenset({*range(0xC2, 0xD0), 0xDA} - {0xC4, 0xC8, 0xCC})
# Smooth upsampling of a row's colours looks at the row below it.
_MARGIN = 2


def upper_rows(data: bytes, rows: int, width: int, channels: int, factor: int) -> NDArray[np.uint8] | None:
    """At least the first `rows` rows of a baseline JPEG, to the bit as in the whole, uint8 [H, width, channels].

    Args:
        data: a JPEG file.
        rows: how many are needed, at the scale of `factor`.
        width: of the result, at the scale of `factor`.
        channels: 3 for RGB, 1 for grey.
        factor: the scale, 1, 2, 4 or 8 pixels of the file to one of the result.
    Returns:
        None where only decoding the whole file can tell: it is progressive, four-colour or damaged.
    """
    place = _frame_height(data)
    if place is None:
        return None
    height = min(int.from_bytes(data[place : place + 2], "big"), (rows + _MARGIN) * factor)
    rows = -(-height // factor)
    pixels = np.empty((rows, width, channels), np.uint8)
    try:
        simplejpeg.decode_jpeg(
            data[:place] + height.to_bytes(2, "big") + data[place + 2 :],
            "GRAY" if channels == 1 else "RGB",
            min_height=rows,
            min_width=width,
            buffer=pixels,
        )
    except ValueError as error:
        # libjpeg-turbo decodes to the end and then gives the first of its warnings.
        if "extraneous bytes before marker" not in str(error):
            return None
    return pixels


def _frame_height(data: bytes) -> int | None:
    """Where the frame header of a baseline JPEG of one or three colours has its height; None: it has no such header."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind in _SEQUENTIAL_FRAMES:
            return place + 5 if data[place + 9] in (1, 3) else None
        if kind in _OTHERS:
            return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
