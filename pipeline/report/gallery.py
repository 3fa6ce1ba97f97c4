"""Pictures for the page: samples of the shards by id, small, as data URIs."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.artifacts import Artifact
from pipeline.errors import TutelageError
from pipeline.html.markup import Markup, tag
from pipeline.html.pictures import picture_uri
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.item_names import item_names

_THUMB_PX = 128
_THUMB_BYTES = 12_000
_SHEET_PX = 1600
_SHEET_BYTES = 700_000


class Gallery:
    """Returns the picture of a sample, or a blank tile without shards or for an unreadable sample.

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
        return tag("img", src=uri, alt=description, title=description, class_=classes)

    def names(self, ids: Iterable[int]) -> dict[int, str]:
        """The names of samples in their source, e.g. the paths of files; without those that have none."""
        return {} if self._shards is None else item_names(self._shards, ids)

    def data(self, id: int) -> bytes | None:
        """A sample's encoded picture; None if it cannot be read."""
        if self._reader is None:
            return None
        try:
            return self._reader.read(id)
        except (TutelageError, IndexError):
            return None

    def contact_sheet(self, description: str) -> Markup | None:
        """The contact sheet of the shards artifact, scaled down if its file is large."""
        return None if self._shards is None else sheet_of(self._shards, "contact_sheet.png", description)

    def _uri(self, id: int) -> str | None:
        if id not in self._uris:
            data = self.data(id)
            uri = None if data is None else picture_uri(data, max_px=_THUMB_PX, max_bytes=_THUMB_BYTES)
            self._uris[id] = uri
        return self._uris[id]


def sheet_of(artifact: Artifact, name: str, description: str) -> Markup | None:
    """A contact sheet from an artifact, scaled down if its file is large; None if the artifact has none."""
    if name not in artifact.files:
        return None
    uri = picture_uri(artifact.read(name), max_px=_SHEET_PX, max_bytes=_SHEET_BYTES)
    return None if uri is None else tag("img", src=uri, alt=description, class_="sheet")
