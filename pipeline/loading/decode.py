"""Decoding: encoded bytes to uint8 pixels at the model's size.

pipeline/pixels/decode.py defines the pixels. An antialiased resize of an image from 72 to 64 pixels takes 50 us in
torch and 98 us in PIL (one thread of a 2-core machine, n = 200). All steps release the interpreter's lock, and none
starts threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.loading.resize import resize, resize_to_square
from pipeline.pixels.decode import decode as decode_whole
from pipeline.pixels.interpolation import Interpolation
from pipeline.pixels.jpeg import Frame, jpeg_pixels, plain_frame, upper_rows


@dataclass(frozen=True, slots=True)
class Crop:
    """A box inside an image, independent of the image's size.

    Attributes:
        area: fraction of the image's area, (0, 1].
        ratio: width over height, in pixels, > 0.
        top, left: position within the free margin, [0, 1): 0 is the upper left corner.
        of_square: `area` is a fraction of the largest square inside the image instead of the image.
        interpolation: of the box that is scaled to the square.
    """

    area: float
    ratio: float
    top: float
    left: float
    of_square: bool = False
    interpolation: Interpolation = "bilinear"

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width in pixels, inside an image of this size.

        A box that would exceed the image is clipped to it. torchvision's RandomResizedCrop draws again instead;
        clipping uses a fixed number of random numbers.
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
        data: a file in one of the formats of `pipeline.pixels.decode`, which defines its pixels.
        size: side of the result in pixels.
        channels: 3 for RGB, 1 for grey; other colours are converted.
        crop: the box to cut out and scale to the square; None: the whole image by `resize_to_square`.
    Raises:
        ValueError: the data is not an image that can be decoded.
    """
    frame = plain_frame(data)
    if crop is None:
        return cut(_all_pixels(data, frame, channels), size, None)
    if frame is not None:
        return resize(_jpeg_crop(data, frame, channels, crop, size), size, size, crop.interpolation)
    return cut(decode_whole(data, channels), size, crop)


def cut(pixels: NDArray[np.uint8], size: int, crop: Crop | None) -> NDArray[np.uint8]:
    """A whole image, uint8 [H, W, channels], cropped and scaled to [size, size, channels]."""
    if crop is None:
        return resize_to_square(pixels, size)
    return resize(_apply_crop(pixels, crop), size, size, crop.interpolation)


def whole_pixels(data: bytes, *, size: int, channels: int) -> NDArray[np.uint8] | None:
    """The whole image, uint8 [H, W, channels], from which `cut` makes what `decode` returns, bit for bit.

    Args:
        data, channels: see `decode`.
        size: smallest side of the images that will be cut.
    Returns:
        None if there is no such image: a JPEG of which `decode` may decode a crop at a reduced scale, or one with a
        warning, which `decode` may not see in the rows below a crop.
    Raises:
        ValueError: the data is not an image that can be decoded.
    """
    frame = plain_frame(data)
    if frame is None:
        return decode_whole(data, channels)
    return None if min(frame.height, frame.width) >= 2 * size else jpeg_pixels(data, frame, channels)


def _apply_crop(pixels: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    top, left, height, width = crop.box(*pixels.shape[:2])
    return pixels[top : top + height, left : left + width]


def _jpeg_crop(data: bytes, frame: Frame, channels: int, crop: Crop, size: int) -> NDArray[np.uint8]:
    """The cropped box of a JPEG, uint8 [H, W, channels], decoded at a reduced scale if possible.

    Scales of 1/2, 1/4 and 1/8 make decoding cheaper; the box keeps at least `size` pixels a side.
    """
    shorter = min(crop.box(frame.height, frame.width)[2:])
    factor = next((f for f in (8, 4, 2) if shorter >= f * size), 1)
    height, width = -(-frame.height // factor), -(-frame.width // factor)
    top, left, box_height, box_width = crop.box(height, width)
    rows = upper_rows(data, frame, top + box_height, channels, factor)
    if rows is not None:
        return rows[top : top + box_height, left : left + box_width]
    pixels = jpeg_pixels(data, frame, channels, height, width)
    return _apply_crop(decode_whole(data, channels) if pixels is None else pixels, crop)


def _all_pixels(data: bytes, frame: Frame | None, channels: int) -> NDArray[np.uint8]:
    """The image without a crop, uint8 [H, W, channels]."""
    pixels = None if frame is None else jpeg_pixels(data, frame, channels)
    return decode_whole(data, channels) if pixels is None else pixels
