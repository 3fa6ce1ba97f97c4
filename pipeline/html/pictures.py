"""Pictures embedded in a page: encoded images as data URIs, small enough for hundreds per page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from pipeline.pixels.decode import ImageError, load_pixels, open_image, plain_image
from pipeline.pixels.formats import HEAD_BYTES, format_of

_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


def picture_uri(data: bytes, *, max_px: int, max_bytes: int) -> str | None:
    """A data URI of an encoded picture: scaled down and encoded as WebP, or unchanged if it is small enough.

    Args:
        max_px: longest side after scaling; a picture of up to twice that side stays unchanged if its bytes fit.
        max_bytes: maximum size, reached by a lower quality; the lowest quality may still exceed it.

    Returns:
        None if the bytes are not a picture.
    """
    kind = _TYPES.get(format_of(data[:HEAD_BYTES]) or "")
    try:
        with open_image(data) as image:
            if kind is not None and len(data) <= max_bytes and max(image.size) <= 2 * max_px:
                return _uri(kind, data)
            # A JPEG is decoded at a fraction of its size, in a fraction of the time.
            image.draft("RGB", (2 * max_px, 2 * max_px))
            # Upright, and composited on white.
            small = plain_image(load_pixels(image)).convert("RGB")
            small.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
    except ImageError:
        return None
    for quality in (88, 70, 50, 30):
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=quality, method=4)
        if buffer.tell() <= max_bytes:
            break
    return _uri("image/webp", buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
