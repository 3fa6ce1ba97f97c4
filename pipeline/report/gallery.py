"""Pictures for the page: samples of the shards by their id, small, as data URIs."""

from __future__ import annotations

import base64
import io

from PIL import Image, UnidentifiedImageError

from pipeline.artifacts import Artifact
from pipeline.errors import TutelageError
from pipeline.loading.reader import SampleReader
from pipeline.report.html import Markup, tag

_THUMB_PX = 128
_THUMB_BYTES = 12_000
_SHEET_PX = 1600
_SHEET_BYTES = 700_000
_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


class Gallery:
    """Gives the picture of a sample; without shards, or for a sample that cannot be read, a blank tile.

    Args:
        shards: the shards artifact, if the run has one.
    """

    def __init__(self, shards: Artifact | None) -> None:
        self._shards = shards
        self._reader = None if shards is None else SampleReader.open(shards)
        self._uris: dict[int, str | None] = {}

    def thumb(self, id: int, description: str, class_: str = "") -> Markup:
        """An img element of a sample."""
        uri = self._uri(id)
        classes = f"thumb {class_}".strip()
        if uri is None:
            return tag("span", class_=classes, title=description)
        return tag("img", src=uri, alt=description, title=description, class_=classes, loading="lazy")

    def data(self, id: int) -> bytes | None:
        """A sample's encoded picture; None if it cannot be read."""
        if self._reader is None:
            return None
        try:
            return self._reader.read(id)
        except (TutelageError, IndexError):
            return None

    def contact_sheet(self, description: str) -> Markup | None:
        """The sheet that the shards artifact holds, made smaller if it is heavy."""
        return None if self._shards is None else sheet_of(self._shards, "contact_sheet.png", description)

    def _uri(self, id: int) -> str | None:
        if id not in self._uris:
            data = self.data(id)
            uri = None if data is None else picture_uri(data, largest_px=_THUMB_PX, most_bytes=_THUMB_BYTES)
            self._uris[id] = uri
        return self._uris[id]


def sheet_of(artifact: Artifact, name: str, description: str) -> Markup | None:
    """A sheet of pictures that an artifact holds, made smaller if it is heavy; None if it holds none."""
    if name not in artifact.files:
        return None
    uri = picture_uri(artifact.read(name), largest_px=_SHEET_PX, most_bytes=_SHEET_BYTES)
    return None if uri is None else tag("img", src=uri, alt=description, class_="sheet", loading="lazy")


def picture_uri(data: bytes, *, largest_px: int, most_bytes: int) -> str | None:
    """A data URI of an encoded picture: as it is if small enough, else scaled down and encoded anew.

    Returns:
        None if the bytes are no picture.
    """
    kind = next((name for magic, name in _TYPES.items() if data.startswith(magic)), None)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if kind is not None and len(data) <= most_bytes and max(image.size) <= 2 * largest_px:
                return _uri(kind, data)
            small = image.convert("RGB")
            small.thumbnail((largest_px, largest_px), Image.Resampling.LANCZOS)
    except (UnidentifiedImageError, OSError):
        return None
    for quality in (88, 70, 50, 30):
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=quality, method=4)
        if buffer.tell() <= most_bytes:
            break
    return _uri("image/webp", buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
