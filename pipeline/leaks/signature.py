"""The signature of an image, in 313 bytes: enough to recognise a copy, and to distinguish it from similar images.

    pixels   a hash of all decoded pixels: equal after lossless re-encoding
    hash     64 bits (pipeline/sharding/format/perceptual.py): near for images that look alike, but also for some that
             do not
    grey     16x16 cells of brightness
    colour   4x4 cells of the two colour differences

Two images with near hashes count as the same image if the cells agree in detail: the brightness correlates over the
cells, and no cell has another colour. Both measures tolerate a change of brightness, the softer edges of JPEG and, in
a photograph, a shift by one pixel (docs/leaks.md has the figures).
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.pixels.decode import decoding_reason, load_pixels, open_image, plain_image
from pipeline.sharding.format.perceptual import difference_hash

_GREY, _COLOUR = 16, 4  # cells along a side
_SMALL_SIDE = 96  # pixels; a larger image is first reduced to about this by an integer factor, which is cheap
SIGNATURE = np.dtype(
    [
        ("pixels", "<u8", 2),
        ("hash", "<u8"),
        ("grey", "u1", _GREY * _GREY),
        ("colour", "u1", 2 * _COLOUR * _COLOUR),
        ("state", "u1"),
    ]
)
# Standard deviation over the cells, of 256 levels; below it an image has no structure by which to recognise it.
_MIN_CONTRAST = 3.0
_COLOUR_TOLERANCE = 16  # of 256 levels; a copy of 1.1 times the brightness stays within 10
_PAIRS_AT_ONCE = 1 << 14


class State(IntEnum):
    """How an image can be compared."""

    COMPARABLE = 0
    FLAT = 1  # (nearly) one colour: only equal pixels count as a match
    UNREADABLE = 2  # damaged: only equal bytes count as a match


def image_signature(data: bytes) -> NDArray[np.void]:
    """The signature of an encoded image, a scalar of dtype `SIGNATURE`.

    Raises:
        ValueError: it cannot be decoded; the message is the reason, in one line.
    """
    signature = np.zeros((), dtype=SIGNATURE)
    try:
        with open_image(data) as image:
            rgb = plain_image(load_pixels(image)).convert("RGB")
    except Exception as error:
        raise ValueError(decoding_reason(error)) from None
    hasher = hashlib.sha256(f"{rgb.width}x{rgb.height} ".encode())
    hasher.update(rgb.tobytes())
    signature["pixels"] = np.frombuffer(hasher.digest()[:16], dtype="<u8")
    small = rgb.reduce(max(1, min(rgb.size) // _SMALL_SIDE))
    grey = small.convert("L")
    cells = np.asarray(grey.resize((_GREY, _GREY), Image.Resampling.LANCZOS))
    colours = small.resize((_COLOUR, _COLOUR), Image.Resampling.BOX).convert("YCbCr")
    signature["hash"] = difference_hash(grey)
    signature["grey"] = cells.ravel()
    signature["colour"] = np.asarray(colours)[..., 1:].ravel()
    signature["state"] = State.FLAT if cells.std() < _MIN_CONTRAST else State.COMPARABLE
    return signature


def difference(first: NDArray[np.void], second: NDArray[np.void], tolerance: float) -> NDArray[np.float32]:
    """[n] differences of n pairs; at most 1 if a pair counts as the same image.

    A difference is the larger of two quotients: 1 - the correlation of brightness over the cells, divided by
    `tolerance`; and the largest colour difference in a cell, divided by 16 (of 256 levels).

    Args:
        first, second: [n] of dtype `SIGNATURE`, none of them flat.
        tolerance: value of 1 - correlation up to which a pair counts as the same image.
    """
    differences = np.empty(len(first), dtype=np.float32)
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        left, right = first[start : start + _PAIRS_AT_ONCE], second[start : start + _PAIRS_AT_ONCE]
        a, b = left["grey"].astype(np.float32), right["grey"].astype(np.float32)
        # All sums are integers below 2**24, so float32 holds them exactly in any order of summation.
        ab, aa, bb = (np.einsum("ij,ij->i", x, y).astype(np.float64) for x, y in ((a, b), (a, a), (b, b)))
        a_mean, b_mean = (x.sum(axis=1, dtype=np.float64) / x.shape[1] for x in (a, b))
        n = a.shape[1]
        spread = np.sqrt((aa - n * a_mean**2) * (bb - n * b_mean**2))
        uncorrelated = 1 - (ab - n * a_mean * b_mean) / spread
        colours = np.abs(left["colour"].astype(np.int16) - right["colour"]).max(axis=1)
        differences[start : start + _PAIRS_AT_ONCE] = np.maximum(uncorrelated / tolerance, colours / _COLOUR_TOLERANCE)
    return np.maximum(differences, 0)
