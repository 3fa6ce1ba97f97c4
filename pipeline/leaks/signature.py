"""What an image looks like, in 313 bytes: enough to find it again, and to tell it from others that are merely like it.

    pixels   a hash of all decoded pixels: equal for an image that was encoded anew without loss
    hash     64 bits (pipeline/sharding/format/perceptual.py): near for images that look alike, but also for some that
             do not
    grey     16x16 cells of brightness
    colour   4x4 cells of the two colour differences

A pair whose hashes are near is taken for one image if the second look agrees: their brightness goes up and down
together over the cells, and no cell has another colour. Both are measured so that a brighter or darker copy, an
edge that JPEG softened and, in a photograph, a shift by a pixel do not matter (docs/leaks.md has the figures).
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.pixels.decode import decoding_reason, loaded, opened, plain_image
from pipeline.sharding.format.perceptual import difference_hash

_GREY, _COLOUR = 16, 4
_SMALL_SIDE = 96  # pixels; a larger image is brought near it by whole steps, which costs little
LOOK = np.dtype(
    [
        ("pixels", "<u8", 2),
        ("hash", "<u8"),
        ("grey", "u1", _GREY * _GREY),
        ("colour", "u1", 2 * _COLOUR * _COLOUR),
        ("state", "u1"),
    ]
)
# Of the 256 levels, the standard deviation over the cells: below it there is nothing to recognise an image by.
_LEAST_CONTRAST = 3.0
_COLOUR_ALLOWED = 16  # of 256 levels; a copy of 1.1 times the brightness stays within 10
_AT_ONCE = 1 << 14


class State(IntEnum):
    """What could be seen of an image."""

    SEEN = 0
    FLAT = 1  # one colour, or nearly: only equal pixels say that two such images are one
    UNREADABLE = 2


def look_at(data: bytes) -> NDArray[np.void]:
    """The look of an encoded image, a scalar of dtype `LOOK`.

    Raises:
        ValueError: it cannot be decoded; its text is the reason, in one line.
    """
    look = np.zeros((), dtype=LOOK)
    try:
        with opened(data) as image:
            rgb = plain_image(loaded(image)).convert("RGB")
    except Exception as error:
        raise ValueError(decoding_reason(error)) from None
    hashed = hashlib.sha256(f"{rgb.width}x{rgb.height} ".encode())
    hashed.update(rgb.tobytes())
    look["pixels"] = np.frombuffer(hashed.digest()[:16], dtype="<u8")
    small = rgb.reduce(max(1, min(rgb.size) // _SMALL_SIDE))
    grey = small.convert("L")
    cells = np.asarray(grey.resize((_GREY, _GREY), Image.Resampling.LANCZOS))
    colours = small.resize((_COLOUR, _COLOUR), Image.Resampling.BOX).convert("YCbCr")
    look["hash"] = difference_hash(grey)
    look["grey"] = cells.ravel()
    look["colour"] = np.asarray(colours)[..., 1:].ravel()
    look["state"] = State.FLAT if cells.std() < _LEAST_CONTRAST else State.SEEN
    return look


def difference(one: NDArray[np.void], other: NDArray[np.void], allowed: float) -> NDArray[np.float32]:
    """[n] how far the second looks of n pairs are apart: at most 1 if they are taken for one image.

    The larger of two shares of what is allowed: 1 - the correlation of brightness over the cells, and the largest
    difference of colour in a cell.

    Args:
        one, other: [n] of dtype `LOOK`, none of them flat.
        allowed: of 1 - correlation.
    """
    found = np.empty(len(one), dtype=np.float32)
    for start in range(0, len(one), _AT_ONCE):
        left, right = one[start : start + _AT_ONCE], other[start : start + _AT_ONCE]
        a, b = left["grey"].astype(np.float32), right["grey"].astype(np.float32)
        # All sums are whole numbers below 2**24, so float32 holds them exactly, in whatever order they are made.
        ab, aa, bb = (np.einsum("ij,ij->i", x, y).astype(np.float64) for x, y in ((a, b), (a, a), (b, b)))
        a_mean, b_mean = (x.sum(axis=1, dtype=np.float64) / x.shape[1] for x in (a, b))
        n = a.shape[1]
        spread = np.sqrt((aa - n * a_mean**2) * (bb - n * b_mean**2))
        apart = 1 - (ab - n * a_mean * b_mean) / spread
        colours = np.abs(left["colour"].astype(np.int16) - right["colour"]).max(axis=1)
        found[start : start + _AT_ONCE] = np.maximum(apart / allowed, colours / _COLOUR_ALLOWED)
    return np.maximum(found, 0)
