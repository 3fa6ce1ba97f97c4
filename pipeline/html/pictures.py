"""Pictures embedded in a page: encoded images as data URIs, small enough for hundreds per page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from pipeline.pixels.decode import ImageError, loaded, opened, plain_image
from pipeline.pixels.formats import HEAD_BYTES, format_of

_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


def picture_uri(data: bytes, *, largest_px: int, most_bytes: int) -> str | None:
    """A data URI of an encoded picture: unchanged if small enough, else scaled down and encoded again.

    Returns:
        None if the bytes are not a picture.
    """
    kind = _TYPES.get(format_of(data[:HEAD_BYTES]) or "")
    try:
        with opened(data) as image:
            if kind is not None and len(data) <= most_bytes and max(image.size) <= 2 * largest_px:
                return _uri(kind, data)
            # A JPEG is decoded at a fraction of its size, in a fraction of the time.
            image.draft("RGB", (2 * largest_px, 2 * largest_px))
            small = plain_image(loaded(image)).convert("RGB")
            small.thumbnail((largest_px, largest_px), Image.Resampling.LANCZOS)
    except ImageError:
        return None
    for quality in (88, 70, 50, 30):
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=quality, method=4)
        if buffer.tell() <= most_bytes:
            break
    return _uri("image/webp", buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
