"""Hashes of an item's name and metadata: they detect new, removed and changed items without reading the images."""

from __future__ import annotations

import json
from typing import Any

from pipeline.counter_rng import text_hash
from pipeline.sharding.sources.base import Item


def item_hashes(item: Item) -> dict[str, Any]:
    """The name as text, and 64-bit hashes of the name, of all metadata, and of the stamp.

    The stamp changes when the image's bytes change, e.g. size and modification time of a file; hash 0: it has none.
    """
    name = plain_text(item.name)
    metadata = [
        item.label,
        item.key,
        item.captions,
        item.group,
        item.taxonomy,
        item.family,
        item.licence,
        item.split,
        dict(item.extra),
    ]
    text = json.dumps(metadata, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return {
        "name": name,
        "name_hash": text_hash(name),
        "metadata_hash": text_hash(plain_text(text)),
        "stamp_hash": text_hash(item.stamp) if item.stamp is not None else 0,
    }


def plain_text(name: str) -> str:
    """A name as valid Unicode text, with surrogates replaced."""
    return name.encode("utf-8", "replace").decode()
