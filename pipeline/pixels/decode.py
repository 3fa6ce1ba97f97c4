"""The pixels of an encoded image: one contract for sharding, training, evaluation and serving.

    formats       those of `FORMATS`, by content; others are not passed to a decoder
    frame         the first of an animation, of a multi-page TIFF, of an MPO
    orientation   applied, from EXIF and XMP in every format, so that images are upright as in a viewer
    transparency  composited on white: alpha channels, palettes with alpha, colour keys (tRNS)
    bit depth     8 bits a channel, scaled by range: 16 bits become value * 255 / 65535. For a 16-bit TIFF the range
                  is that of its tags, else the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value.
                  Floats from 0 to 1 are scaled to 255, floats from 0 to 255 are unchanged, others are scaled
                  linearly from their minimum and maximum
    colours       palettes, CMYK, YCbCr and others are converted to RGB by Pillow; ICC profiles, gAMA, sRGB and cHRM
                  are ignored: values are interpreted as sRGB
    grey          ITU-R BT.601 of the 8-bit RGB pixels

This file needs Pillow and NumPy only: a registered model carries a copy of it (pipeline/registration/package.py).
Pillow reads all formats here. torchvision's PNG decoder is unsafe for untrusted bytes: it ends the process with SIGSEGV
on every error of libpng (0.29), and with a full check first it is no faster than Pillow (72-px PNG: Pillow 392 us,
torchvision 302 us, and the check 84 us). pipeline/pixels/jpeg.py decodes JPEGs faster, with the same result.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI")
"""Pillow's names of the supported formats; its JPEG plug-in also reads MPO. Others are not opened: EPS starts
Ghostscript, and many plug-ins are rarely tested."""

MAX_DECODED_BYTES = 256 << 20
"""Largest decoded image: width x height x bytes per pixel; 89 million pixels of RGB. Decoding needs 3 times that."""

_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "LA": 2, "PA": 2, "I;16": 2, "I;16B": 2, "I;16L": 2, "RGB": 3, "YCbCr": 3}
_STRIP_BYTES = 1 << 22  # computed at a time; bounds the memory of intermediate values
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_MAX_VALUE, _TIFF_SAMPLE_FORMAT = 258, 262, 281, 339
_DEPTHS = (8, 10, 12, 14, 16)
_WORD = re.compile(r"[A-Za-z]{3,}")

# Pillow warns of odd EXIF and of many pixels: the first does not matter, the second is limited here. (The filter is
# process-wide, because `catch_warnings` is not thread-safe.)
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(ValueError):
    """An image cannot be decoded; the message is the reason, in one line.

    Attributes:
        fault: "empty"; "foreign": not a supported format; "too_many_pixels"; "damaged".
    """

    def __init__(self, reason: str, fault: str = "damaged") -> None:
        super().__init__(reason)
        self.fault = fault


def decode(data: bytes, channels: int = 3, *, max_bytes: int | None = None) -> NDArray[np.uint8]:
    """Decodes an image to uint8 [H, W, channels], by the contract above.

    Args:
        channels: 3 for RGB, 1 for grey.
        max_bytes: limit of the decoded image, see `decoded_bytes`; None: Pillow's own, 179 million pixels.
    Raises:
        ImageError: replaces any error of the decoder.
    """
    image = open_image(data)
    try:
        check_size(image, max_bytes)
        plain = plain_image(load_pixels(image))
        mode = "RGB" if channels == 3 else "L"
        pixels: NDArray[np.uint8] = np.asarray(plain if plain.mode == mode else plain.convert(mode))
    finally:
        image.close()
    return pixels if channels == 3 else pixels[:, :, None]


def open_image(data: bytes) -> Image.Image:
    """Opens an image: reads the header and decodes no pixel.

    Raises:
        ImageError: the data is empty or not in a supported format, or the header is damaged.
    """
    if not data:
        raise ImageError("empty (0 bytes)", "empty")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a format that is read ({len(data)} bytes)", "foreign") from None
    except Image.DecompressionBombError as error:
        raise ImageError(decoding_reason(error), "too_many_pixels") from None
    except Exception as error:
        raise ImageError(decoding_reason(error)) from None


def decoded_bytes(image: Image.Image) -> int:
    """Size of the decoded image: width x height x bytes per pixel of its mode."""
    return image.width * image.height * _BYTES_PER_PIXEL.get(image.mode, 4)


def check_size(image: Image.Image, max_bytes: int | None) -> None:
    """Raises ImageError if the decoded image would exceed `max_bytes`; needs only the header."""
    if max_bytes is not None and decoded_bytes(image) > max_bytes:
        raise ImageError(
            f"{image.width}x{image.height} in mode {image.mode}: {decoded_bytes(image) >> 20} MiB decoded, "
            f"more than {max_bytes >> 20} MiB",
            "too_many_pixels",
        )


def load_pixels(image: Image.Image) -> Image.Image:
    """The same image with its pixels decoded, and its colour key scaled to the depth of the pixels.

    Raises:
        ImageError: replaces any error of the decoder; Pillow's plug-ins raise more types than OSError.
    """
    raw_mode = _raw_mode(image)
    try:
        image.load()
    except Exception as error:
        raise ImageError(decoding_reason(error)) from None
    # The colour key of a PNG has the bit depth of the file, the decoded pixels may have another.
    key = image.info.get("transparency")
    if raw_mode in ("L;2", "L;4") and isinstance(key, int):
        image.info["transparency"] = key * (85 if raw_mode == "L;2" else 17)
    elif raw_mode == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return image


def plain_image(image: Image.Image) -> Image.Image:
    """A decoded image converted by the contract: mode "RGB" or "L", upright, opaque.

    Raises:
        ImageError: its values cannot be converted to 8 bits, or its mode to RGB.
    """
    try:
        turn = _TURNS.get(orientation(image))
        if image.mode.startswith("I") or image.mode == "F":
            plain = _eight_bits(image)
        elif image.has_transparency_data:
            plain = _on_white(image)
        else:
            _refuse_dark_colour_tiff(image)
            grey = image.mode in ("1", "L")
            plain = image if image.mode in ("L", "RGB") else image.convert("L" if grey else "RGB")
        return plain if turn is None else plain.transpose(turn)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(decoding_reason(error)) from None


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a decoded image, 1 to 8; 1 if it is missing or cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in _TURNS else 1


def decoding_reason(error: BaseException) -> str:
    """An error's message in one line, without quotations from the file and without memory addresses."""
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    if len(_WORD.findall(line)) < 2:  # A KeyError's text is only the number or name that was not found.
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
        line = f"the decoder failed: {name} {line}" if text else f"the decoder failed: {name}"
    # Pillow's PPM reader quotes words of the header; the file may be a secret that begins with a PPM signature.
    line = re.sub(r"^(?:b['\"])?(.*\b(?:[Tt]oken|ASCII|invalid literal)\b[^:]*): .*", r"\1", line)
    return re.sub(r"<_io\.BytesIO object at 0x[0-9a-f]+>", "the file", line)


def _raw_mode(image: Image.Image) -> str:
    """The raw mode of a PNG's pixels, e.g. "L;4"; "" for other formats."""
    if image.format != "PNG" or not getattr(image, "tile", None):
        return ""
    args: Any = image.tile[0][3]  # type: ignore[attr-defined]
    return str(args[0] if isinstance(args, tuple) else args)


def _strips(height: int, row_bytes: int) -> list[slice]:
    rows = max(1, _STRIP_BYTES // max(1, row_bytes))
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]


def _on_white(image: Image.Image) -> Image.Image:
    """RGB composited on white, rounded to the nearest level; strip by strip to limit memory."""
    key = image.info.get("transparency")
    flat = np.empty((image.height, image.width, 3), np.uint8)
    for rows in _strips(image.height, 16 * image.width):
        strip = image.crop((0, rows.start, image.width, rows.stop))
        if image.mode in ("1", "L") and isinstance(key, int):
            grey = np.asarray(strip.convert("L"))
            colours, alpha = np.repeat(grey[:, :, None], 3, axis=2), np.where(grey == key, 0, 255)
        elif image.mode == "RGB" and isinstance(key, tuple):
            colours = np.asarray(strip)
            alpha = np.where((colours == np.array(key)).all(axis=2), 0, 255)
        else:
            strip.info["transparency"] = key
            if key is None:
                del strip.info["transparency"]
            rgba = np.asarray(strip.convert("RGBA"))
            colours, alpha = rgba[:, :, :3], rgba[:, :, 3]
        weight = alpha.astype(np.uint32)[:, :, None]
        flat[rows] = (colours * weight + 255 * (255 - weight) + 127) // 255
    return Image.fromarray(flat)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts 16-bit, 32-bit or float grey to 8 bits, by range."""
    values = np.asarray(image)
    tags = _tiff_tags(image)
    if tags.get(_TIFF_BITS) == (32,) and tags.get(_TIFF_SAMPLE_FORMAT, (1,)) == (1,):
        values = values.view(np.uint32)  # Pillow has signed integers only
    low, high = _range(image, values)
    key = image.info.get("transparency")
    is_inverted = tags.get(_TIFF_PHOTOMETRIC) == 0 and image.mode != "F"
    grey = np.empty(values.shape, np.uint8)
    for rows in _strips(image.height, 24 * image.width):
        strip = values[rows].astype(np.float64)
        scaled = np.clip(np.floor((strip - low) * (255.0 / (high - low)) + 0.5), 0, 255).astype(np.uint8)
        if isinstance(key, int):
            scaled[values[rows] == key] = 255
        grey[rows] = 255 - scaled if is_inverted else scaled
    return Image.fromarray(grey)


def _range(image: Image.Image, values: NDArray[Any]) -> tuple[float, float]:
    """The values that are mapped to 0 and 255."""
    least, largest = float(values.min()), float(values.max())
    if not (np.isfinite(least) and np.isfinite(largest)):
        raise ImageError("floats that are infinite or not a number")
    if image.mode == "F":
        fixed = next((high for high in (1.0, 255.0) if least >= 0 and largest <= high), None)
        return (0.0, fixed) if fixed is not None else (least, max(largest, least + 1))
    if least < 0 or largest > 65535:
        return least, max(largest, least + 1)
    tags = _tiff_tags(image)
    return 0.0, float(_tiff_white(tags, largest)) if tags else 65535.0


def _tiff_white(tags: Any, largest: float) -> int:
    """The value of white in a TIFF of 16-bit grey."""
    bits = tags.get(_TIFF_BITS, (16,))[0]
    stated = tags.get(_TIFF_MAX_VALUE)
    stated = stated[0] if isinstance(stated, tuple) else stated
    if isinstance(stated, int) and largest <= stated < 1 << 16 and stated:
        return stated
    depths = (bits,) if bits in (10, 12, 14) else _DEPTHS
    return next(((1 << depth) - 1 for depth in depths if largest < 1 << depth), 65535)


def _refuse_dark_colour_tiff(image: Image.Image) -> None:
    """Raises ImageError for colours of at most 14 bits in a 16-bit TIFF: Pillow keeps the upper 8 bits only."""
    if image.mode == "RGB" and max(_tiff_tags(image).get(_TIFF_BITS, (8,))) > 8:
        largest = max(high for _, high in image.getextrema())  # type: ignore[misc]
        if largest < 1 << 6:
            raise ImageError("a colour TIFF of 16 bits a channel that uses at most 14 of them; convert it to 8 bits")


def _tiff_tags(image: Image.Image) -> Any:
    """The tags of a TIFF by their numbers; none for other formats."""
    return getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
