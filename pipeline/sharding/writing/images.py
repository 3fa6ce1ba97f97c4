"""The stored bytes of an image: unchanged if all decoders agree on its pixels, else re-encoded as RGB or greyscale.

pipeline/pixels/decode.py defines the pixels. The image size is read from the header and checked before any pixel is
decoded. A JPEG with an EXIF orientation is re-encoded at quality 95 without subsampling, so that readers of the tars
need not handle EXIF: a lossless rotation is possible only if the size is a multiple of the block size. An image that
our decoder reads and stricter ones reject is re-encoded too. The stored bytes depend only on the source's bytes and the
config.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Literal, cast

from PIL import Image
from pydantic import Field

from pipeline.config import Config, renamed
from pipeline.pixels.decode import (
    MAX_DECODED_BYTES,
    ImageError,
    check_size,
    decoding_reason,
    load_pixels,
    open_image,
    orientation,
    plain_image,
)
from pipeline.pixels.soundness import jpeg_pixels_or_fault, png_fault, webp_fault
from pipeline.sharding.format.perceptual import difference_hash

_EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_ENCODINGS = {"jpeg": "JPEG", "webp": "WEBP", "png": "PNG"}
_PNG_BIT_DEPTH_OFFSET = 24
_PILLOW_LIMIT = 2 * 89_478_485  # above it Pillow itself refuses to open an image
_MAX_BYTES = 2**31 - 1  # lengths in the index are 32-bit


class ImagesConfig(Config):
    """Limits on the size of images, and how they are re-encoded."""

    max_pixels: int = Field(
        89_478_485,
        ge=1,
        le=_PILLOW_LIMIT,
        description="Maximum number of pixels. Larger images are quarantined without being decoded.",
    )
    max_decoded_mib: int = Field(
        MAX_DECODED_BYTES >> 20,
        ge=1,
        le=1 << 12,
        description="Maximum size of a decoded image in MiB (width x height x bytes per pixel). Larger images are"
        " quarantined without being decoded. Decoding can briefly take three times as much memory.",
    )
    max_side: int | None = Field(
        None,
        ge=8,
        description="Maximum length of the longer side in pixels. Larger images are scaled down. null: no limit.",
    )
    encoding: Literal["keep", "jpeg", "webp", "png"] = renamed(
        "keep",
        was="format",
        description="Format of the stored images. keep: JPEG, PNG and WebP keep their format, others become PNG.",
    )
    quality: int = Field(
        90,
        ge=1,
        le=100,
        description="Quality (1 to 100) of images that are re-encoded as JPEG or WebP because of max_side or encoding.",
    )


@dataclass(frozen=True, slots=True)
class Encoded:
    """The stored bytes of an image.

    Attributes:
        extension: "png", "jpg" or "webp".
        changes: why it was re-encoded, e.g. ("transparent", "scaled"); empty if the bytes are the source's.
        difference_hash: 0 if not computed.
    """

    data: bytes
    extension: str
    width: int
    height: int
    changes: tuple[str, ...] = ()
    difference_hash: int = 0

    def with_data(self, data: bytes) -> Encoded:
        """A copy with other bytes."""
        return replace(self, data=data)


Fault = Literal["empty", "long", "too_many_pixels", "foreign", "damaged"]


class UnreadableError(Exception):
    """The bytes are not an image that can be stored; the message is the reason.

    Attributes:
        size: number of bytes.
        fault: empty; long: more bytes than the index can represent; too_many_pixels; foreign: not an image;
            damaged: an image that cannot be decoded.
    """

    def __init__(self, reason: str, size: int, fault: Fault = "damaged") -> None:
        super().__init__(reason, size, fault)  # all arguments, so that the exception can be pickled
        self.size = size
        self.fault = fault

    def __str__(self) -> str:
        return str(self.args[0])


def prepare_image(data: bytes, config: ImagesConfig | None = None, *, with_difference_hash: bool = False) -> Encoded:
    """The bytes to store: unchanged if possible, else re-encoded.

    Args:
        with_difference_hash: also compute the difference hash.

    Raises:
        UnreadableError: the image is incomplete or damaged, or has too many pixels.
    """
    config = config or ImagesConfig()
    examined = examine(data, config)
    try:
        return _encode(examined, data, config, with_difference_hash)
    except Exception as error:
        raise UnreadableError(decoding_reason(error), len(data)) from None


@dataclass(frozen=True, slots=True)
class Examined:
    """A decoded image.

    Attributes:
        image: mode "RGB" or "L", upright and opaque.
        kind: "JPEG", "PNG", ...; an MPO is a JPEG.
        variations: properties that other loaders may render differently, as named in the data card, e.g. "palette".
        is_rotated: it has an EXIF orientation, which viewers apply and most loaders ignore.
        fault: why stricter decoders reject the file; None: they accept it.
    """

    image: Image.Image
    kind: str
    variations: tuple[str, ...]
    is_rotated: bool
    fault: str | None


def examine(data: bytes, config: ImagesConfig | None = None) -> Examined:
    """Decodes an image as the loader does.

    Raises:
        UnreadableError: the image is incomplete or damaged, or has too many pixels; replaces any decoder's exception.
    """
    config, size = config or ImagesConfig(), len(data)
    if size > _MAX_BYTES:
        raise UnreadableError(f"{size} bytes, more than an index can hold ({_MAX_BYTES})", size, "long")
    try:
        image = open_image(data)
        with image:
            _check_size(image, config)
            return _examine(image, data)
    except ImageError as error:
        raise UnreadableError(str(error), size, cast(Fault, error.fault)) from None
    except Exception as error:
        raise UnreadableError(decoding_reason(error), size) from None


def _check_size(image: Image.Image, config: ImagesConfig) -> None:
    pixels = image.width * image.height
    if pixels > config.max_pixels:
        sides = f"{image.width}x{image.height}"
        raise ImageError(f"{sides}: {pixels} pixels, more than max_pixels={config.max_pixels}", "too_many_pixels")
    try:
        check_size(image, config.max_decoded_mib << 20)
    except ImageError as error:
        raise ImageError(f"{error} (max_decoded_mib)", "too_many_pixels") from None


def _examine(image: Image.Image, data: bytes) -> Examined:
    kind = "JPEG" if image.format == "MPO" else image.format or ""
    pixels, fault = None, None
    if kind == "JPEG":
        pixels, fault = jpeg_pixels_or_fault(data)
    if pixels is not None:
        # simplejpeg has decoded it; it accepts only JPEGs without an EXIF orientation.
        plain = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return Examined(plain, kind, (), False, fault)
    is_animated = _is_animated(image)  # before its pixels are decoded: some formats seek for it
    load_pixels(image)
    if kind == "PNG":
        fault = png_fault(data)
    elif kind == "WEBP":
        fault = webp_fault(data)
    return Examined(
        plain_image(image), kind, _variations(image, kind, data, is_animated), orientation(image) != 1, fault
    )


def _variations(image: Image.Image, kind: str, data: bytes, is_animated: bool) -> tuple[str, ...]:
    variations = [] if kind in _EXTENSIONS else [f"was {kind}"]
    if is_animated:
        variations.append("animated")
    if image.has_transparency_data:
        variations.append("transparent")
    elif image.mode == "P":
        variations.append("palette")
    elif image.mode.startswith("I") or image.mode == "F" or (kind == "PNG" and data[_PNG_BIT_DEPTH_OFFSET] == 16):
        variations.append("16 bit")
    elif image.mode not in ("RGB", "L"):
        variations.append(f"was {image.mode}")
    return tuple(variations)


def _is_animated(image: Image.Image) -> bool:
    try:
        # The further pictures of an MPO follow a complete JPEG; JPEG decoders ignore them.
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # A GIF with a damaged second frame; the first is used.
        image.seek(0)
        return True


def _encode(examined: Examined, data: bytes, config: ImagesConfig, with_difference_hash: bool) -> Encoded:
    kind, image = examined.kind, examined.image
    target = _ENCODINGS.get(config.encoding, kind if kind in _EXTENSIONS else "PNG")
    is_scaled = config.max_side is not None and max(image.size) > config.max_side
    changes = [*examined.variations]
    if examined.is_rotated:
        changes.append("turned by EXIF")
    if examined.fault is not None:
        changes.append("repaired")
    if is_scaled:
        changes.append("scaled")
    if config.encoding != "keep" and kind != target:
        changes.append(f"made {config.encoding}")
    if not changes:
        return Encoded(
            data,
            _EXTENSIONS[kind],
            image.width,
            image.height,
            (),
            difference_hash(image) if with_difference_hash else 0,
        )
    if is_scaled:
        image.thumbnail((config.max_side or 0, config.max_side or 0), Image.Resampling.LANCZOS)
    is_requested = is_scaled or config.encoding != "keep"
    if target == "WEBP" and not is_requested:
        target = "PNG"  # lossless: the WebP's own quality is not known
    buffer = io.BytesIO()
    image.info.clear()
    if target == "PNG":
        image.save(buffer, "PNG", compress_level=1)
    elif is_requested:
        image.save(buffer, target, quality=config.quality)
    else:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    hash_of_pixels = difference_hash(image) if with_difference_hash else 0
    return Encoded(buffer.getvalue(), _EXTENSIONS[target], image.width, image.height, tuple(changes), hash_of_pixels)
