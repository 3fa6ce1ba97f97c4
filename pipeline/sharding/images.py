"""What is stored of an image: its own bytes if the loader reads them upright, else an RGB or grey image made from it.

An image's size is taken from its header and bounded before a pixel is decoded. A JPEG that its EXIF turns cannot be
turned without loss (its blocks need not fit), and no reader of the tars should have to know: so those few are
encoded anew, at quality 95 without subsampling. The same bytes and config give the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from pipeline.config import Config
from pipeline.sharding.perceptual import difference_hash

_EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_WANTED = {"jpeg": "JPEG", "webp": "WEBP", "png": "PNG"}
_EXIF_ORIENTATION = 0x0112
_PILLOW_LIMIT = 2 * 89_478_485  # above it Pillow itself refuses to open an image
_MAX_BYTES = 2**31 - 1  # lengths in the index are 32-bit

# Pillow warns of odd EXIF and of many pixels; the first does not matter and the second is refused below. (A filter
# of the whole process, since `catch_warnings` is not made for threads.)
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImagesConfig(Config):
    """Which images are refused, and which are encoded anew."""

    max_pixels: int = Field(
        89_478_485, ge=1, le=_PILLOW_LIMIT, description="an image of more pixels is quarantined, before it is decoded"
    )
    max_side: int | None = Field(
        None, ge=8, description="an image with a longer side is scaled down to it; null: sizes stay"
    )
    format: Literal["keep", "jpeg", "webp", "png"] = Field(
        "keep", description="what images of another format become; keep: formats that the loader reads stay"
    )
    quality: int = Field(90, ge=1, le=100, description="of a JPEG or WebP that is encoded anew for its size or format")


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image's bytes as they are stored.

    Attributes:
        extension: "png", "jpg" or "webp".
        changes: why it was encoded anew, e.g. ("transparent", "scaled"); empty if the bytes are the source's.
        look: its difference hash, 0 if it was not asked for.
    """

    data: bytes
    extension: str
    width: int
    height: int
    changes: tuple[str, ...] = ()
    look: int = 0


Fault = Literal["empty", "long", "bomb", "foreign", "damaged"]


class UnreadableError(Exception):
    """Bytes that are not an image that we can store; its text is the reason.

    Attributes:
        size: how many bytes they are.
        fault: empty; long: more bytes than an index holds; bomb: too many pixels; foreign: not an image at all;
            damaged: an image that cannot be decoded.
    """

    def __init__(self, reason: str, size: int, fault: Fault = "damaged") -> None:
        super().__init__(reason)
        self.size = size
        self.fault = fault


def storable(data: bytes, config: ImagesConfig | None = None, *, look: bool = False) -> Encoded:
    """The bytes as they are stored: unchanged if nothing speaks against it, else encoded anew.

    Args:
        look: also compute the difference hash.

    Raises:
        UnreadableError: they are not a whole image, or one of too many pixels.
    """
    config = config or ImagesConfig()
    with opened(data, config.max_pixels) as image:
        return _encoded(image, data, config, look)


@contextmanager
def opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The decoded image; what its decoder raises inside the block counts as damage too.

    Raises:
        UnreadableError: the bytes are not a whole image, or one of too many pixels.
    """
    size = len(data)
    if not data:
        raise UnreadableError("empty (0 bytes)", 0, "empty")
    if size > _MAX_BYTES:
        raise UnreadableError(f"{size} bytes, more than an index can hold ({_MAX_BYTES})", size, "long")
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                sides = f"{image.width}x{image.height}"
                raise UnreadableError(f"{sides}: {pixels} pixels, more than max_pixels={max_pixels}", size, "bomb")
            image.load()
            yield image
    except UnidentifiedImageError:
        raise UnreadableError(f"not an image ({size} bytes, starts with {data[:8]!r})", size, "foreign") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError) as error:
        raise UnreadableError(first_line(error), size) from None
    except Image.DecompressionBombError as error:
        raise UnreadableError(first_line(error), size, "bomb") from None


def first_line(error: BaseException) -> str:
    """What an error says, in one line that does not depend on where things lie in memory."""
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return re.sub(r"<_io\.BytesIO object at 0x[0-9a-f]+>", "the file", line)


def _encoded(image: Image.Image, data: bytes, config: ImagesConfig, look: bool) -> Encoded:
    kind = image.format or ""
    stored = _WANTED.get(config.format, kind if kind in _EXTENSIONS else "JPEG" if kind == "MPO" else "PNG")
    turned = turned_by_exif(image)
    scaled = config.max_side is not None and max(image.size) > config.max_side
    changes = foreign_forms(image, kind)
    if turned:
        changes.append("turned by EXIF")
    if scaled:
        changes.append("scaled")
    if config.format != "keep" and kind != stored:
        changes.append(f"made {config.format}")
    if not changes:
        return Encoded(data, _EXTENSIONS[kind], image.width, image.height, (), difference_hash(image) if look else 0)
    pixels = _plain(ImageOps.exif_transpose(image) if turned else image)
    if scaled:
        pixels.thumbnail((config.max_side or 0, config.max_side or 0), Image.Resampling.LANCZOS)
    asked = scaled or config.format != "keep"
    if stored == "WEBP" and not asked:
        stored = "PNG"  # nobody asked for a loss, and what a WebP lost is not known
    buffer = io.BytesIO()
    if stored == "PNG":
        pixels.save(buffer, "PNG", compress_level=1)
    elif asked:
        pixels.save(buffer, stored, quality=config.quality)
    else:
        pixels.save(buffer, "JPEG", quality=95, subsampling=0)
    hashed = difference_hash(pixels) if look else 0
    return Encoded(buffer.getvalue(), _EXTENSIONS[stored], pixels.width, pixels.height, tuple(changes), hashed)


def turned_by_exif(image: Image.Image) -> bool:
    """Whether a viewer shows it turned, which most loaders do not."""
    return bool(image.getexif().get(_EXIF_ORIENTATION, 1) != 1)


def foreign_forms(image: Image.Image, kind: str) -> list[str]:
    """What about an image our loader would not read as it is meant, in the words of the data card."""
    forms = [] if kind in _EXTENSIONS else [f"was {kind}"]
    if getattr(image, "n_frames", 1) != 1:
        forms.append("animated")
    if image.has_transparency_data:
        forms.append("transparent")
    elif image.mode == "P":
        forms.append("palette")
    elif image.mode not in ("RGB", "L"):
        forms.append("16 bit" if image.mode.startswith("I") or image.mode == "F" else f"was {image.mode}")
    return forms


def _plain(image: Image.Image) -> Image.Image:
    """RGB or 8-bit grey, flattened on white."""
    if image.mode.startswith("I") or image.mode == "F":
        low, high = (float(bound) for bound in image.getextrema())  # type: ignore[arg-type]
        high = 65535.0 if image.mode.startswith("I") and low >= 0 and high > 255 else max(high, 255.0)
        return image.convert("F").point(lambda value: value * (255.0 / high)).convert("L")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        flat = Image.new("RGB", pixels.size, "white")
        flat.paste(pixels, mask=pixels.getchannel("A"))
        return flat
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
