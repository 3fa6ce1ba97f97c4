"""Decoding: encoded bytes to uint8 pixels at the model's size.

Measured, us an image, one thread (2-core machine, n = 200): 72-px PNG torchvision 100, PIL 174;
72-px WebP torchvision 82, PIL 206; antialiased resize 72 to 64 px torch 50, PIL 98. For JPEG
simplejpeg is the fastest (400x357: 550, torchvision 600, PIL 680). All of them work without the
interpreter's lock, and none starts threads of its own.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.loading.jpeg import sequential_frame, upper_rows
from pipeline.loading.resize import resize, resize_to_square

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"


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
        data: a JPEG, PNG or WebP file.
        size: side of the result in pixels.
        channels: 3 for RGB, 1 for grey; what is stored is converted.
        crop: the part to show, scaled to the square; None: the whole image by `resize_to_square`.
    Raises:
        ValueError: the data is not an image that can be decoded.
    """
    if crop is None:
        return resize_to_square(_pixels(data, channels), size)
    if data.startswith(_JPEG):
        return resize(_jpeg_crop(data, channels, crop, size), size, size)
    return resize(_cut(_pixels(data, channels), crop), size, size)


def _cut(pixels: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    top, left, height, width = crop.box(*pixels.shape[:2])
    return pixels[top : top + height, left : left + width]


def _jpeg_crop(data: bytes, channels: int, crop: Crop, size: int) -> NDArray[np.uint8]:
    """The part of a JPEG that a crop shows, uint8 [H, W, channels], scaled down where that makes decoding cheaper.

    It is cheaper at half, a quarter or an eighth; the part keeps at least `size` pixels a side.
    """
    frame = sequential_frame(data)
    height, width = simplejpeg.decode_jpeg_header(data)[:2] if frame is None else frame[:2]
    shorter = min(crop.box(height, width)[2:])
    factor = next((f for f in (8, 4, 2) if shorter >= f * size), 1)
    height, width = -(-height // factor), -(-width // factor)
    if frame is not None:
        top, left, box_height, box_width = crop.box(height, width)
        rows = upper_rows(data, frame, top + box_height, channels, factor)
        if rows is not None:
            return rows[top : top + box_height, left : left + box_width]
    return _cut(_pixels(data, channels, height, width), crop)


def _pixels(data: bytes, channels: int, min_height: int = 0, min_width: int = 0) -> NDArray[np.uint8]:
    """All pixels, uint8 [H, W, channels]; a JPEG at the smallest cheap scale that is at least the minimum."""
    if data.startswith(_JPEG):
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                data, "GRAY" if channels == 1 else "RGB", min_height=min_height, min_width=min_width
            )
            return pixels
        except ValueError:
            pass  # Four-colour JPEGs, which torchvision can read; damaged ones it refuses too.
    if data.startswith(_PNG):
        _check_png(data)
    colour = channels == 3 or data[8:12] == b"WEBP"
    # Here, since importing torchvision takes two seconds, and naming a config of this room must not.
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_image as decode_with_torchvision

    mode = ImageReadMode.RGB if colour else ImageReadMode.GRAY
    try:
        image = decode_with_torchvision(torch.from_numpy(np.frombuffer(data, np.uint8).copy()), mode)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    if image.dtype != torch.uint8:
        # A PNG may have 16 bits a channel: their upper half is the picture at 8.
        image = (image.to(torch.int32) >> 8).to(torch.uint8)
    if len(image) != channels:
        image = _grey(image)
    return image.numpy().transpose(1, 2, 0)


def _check_png(data: bytes) -> None:
    """Refuses a PNG of which a byte was changed: libpng, as torchvision ships it, ends the process on most of them.

    One byte changed at random, 100 files of 4 kB: 96 ended with SIGSEGV (torchvision 0.29). 4 GB/s.

    Raises:
        ValueError: a chunk is cut short, or its checksum is not that of its bytes.
    """
    whole, place = memoryview(data), len(_PNG)
    while place < len(data):
        body = int.from_bytes(data[place : place + 4], "big") + 4
        checksum = int.from_bytes(data[place + 4 + body : place + 8 + body], "big")
        if place + 8 + body > len(data) or zlib.crc32(whole[place + 4 : place + 4 + body]) != checksum:
            raise ValueError(f"the PNG's chunk at byte {place} is damaged")
        if data[place + 4 : place + 8] == b"IEND":
            return
        place += 8 + body
    raise ValueError("the PNG ends early")


def _grey(image: Tensor) -> Tensor:
    """Colour as grey, ITU-R BT.601 in 16-bit fixed point as PIL does it: torchvision's WebP cannot."""
    red, green, blue = image[:3].to(torch.int32)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8)[None]
