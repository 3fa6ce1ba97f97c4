"""Decoding: encoded bytes to uint8 pixels at the model's size.

What the pixels are, pipeline/pixels/decode.py says. Measured, us an image, one thread (2-core machine, n = 200):
antialiased resize 72 to 64 px torch 50, PIL 98. All of it works without the interpreter's lock, and nothing starts
threads of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.loading.resize import resize, resize_to_square
from pipeline.pixels.decode import decode as decode_whole
from pipeline.pixels.jpeg import Frame, jpeg_pixels, plain_frame, upper_rows


@dataclass(frozen=True, slots=True)
class Crop:
    """A box inside an image, independent of the image's size.

    Attributes:
        area: its share of the image's area, (0, 1].
        ratio: its width over its height, in pixels, > 0.
        top, left: where it lies in the room that is left, [0, 1): 0 is the upper left corner.
        of_square: `area` is a share of the largest square inside the image, and not of the image.
    """

    area: float
    ratio: float
    top: float
    left: float
    of_square: bool = False

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width in pixels, inside an image of this size.

        A box that would be longer than the image is cut to it, where torchvision's RandomResizedCrop
        draws again: so a box costs a fixed number of random numbers.
        """
        pixels = (min(height, width) ** 2 if self.of_square else height * width) * self.area
        box_height = min(height, max(1, round(math.sqrt(pixels / self.ratio))))
        box_width = min(width, max(1, round(math.sqrt(pixels * self.ratio))))
        return (
            int(self.top * (height - box_height + 1)),
            int(self.left * (width - box_width + 1)),
            box_height,
            box_width,
        )


def decode(data: bytes, *, size: int, channels: int = 3, crop: Crop | None = None) -> NDArray[np.uint8]:
    """An encoded image as uint8 [size, size, channels].

    Args:
        data: a file of a format of `pipeline.pixels.decode`, which says what its pixels are.
        size: side of the result in pixels.
        channels: 3 for RGB, 1 for grey; other colours are converted.
        crop: the part to show, scaled to the square; None: the whole image by `resize_to_square`.
    Raises:
        ValueError: the data is not an image that can be decoded.
    """
    frame = plain_frame(data)
    if crop is None:
        return resize_to_square(_pixels(data, frame, channels), size)
    if frame is not None:
        return resize(_jpeg_crop(data, frame, channels, crop, size), size, size)
    return resize(_cut(decode_whole(data, channels), crop), size, size)


def _cut(pixels: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    top, left, height, width = crop.box(*pixels.shape[:2])
    return pixels[top : top + height, left : left + width]


def _jpeg_crop(data: bytes, frame: Frame, channels: int, crop: Crop, size: int) -> NDArray[np.uint8]:
    """The part of a JPEG that a crop shows, uint8 [H, W, channels], scaled down where that makes decoding cheaper.

    It is cheaper at half, a quarter or an eighth; the part keeps at least `size` pixels a side.
    """
    shorter = min(crop.box(frame.height, frame.width)[2:])
    factor = next((f for f in (8, 4, 2) if shorter >= f * size), 1)
    height, width = -(-frame.height // factor), -(-frame.width // factor)
    top, left, box_height, box_width = crop.box(height, width)
    rows = upper_rows(data, frame, top + box_height, channels, factor)
    if rows is not None:
        return rows[top : top + box_height, left : left + box_width]
    pixels = jpeg_pixels(data, frame, channels, height, width)
    return _cut(decode_whole(data, channels) if pixels is None else pixels, crop)


def _pixels(data: bytes, frame: Frame | None, channels: int) -> NDArray[np.uint8]:
    """All pixels, uint8 [H, W, channels]."""
    pixels = None if frame is None else jpeg_pixels(data, frame, channels)
    return decode_whole(data, channels) if pixels is None else pixels
