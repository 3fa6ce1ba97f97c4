"""Hashes of an item's name and metadata: they detect new, removed and changed items without reading the images."""

from __future__ import annotations

import json
from typing import Any

from pipeline.counter_rng import text_hash
from pipeline.sharding.sources.base import Item


def remembered(item: Item) -> dict[str, Any]:
    """The name as text; 64-bit hashes: `item` of the name, `facts` of all metadata, `stamp` of the stamp (0: none)."""
    name = plain_text(item.name)
    said = [
        item.label,
        item.key,
        item.captions,
        item.group,
        item.taxonomy,
        item.source,
        item.licence,
        item.split,
        dict(item.extra),
    ]
    return {
        "name": name,
        "item": text_hash(name),
        "facts": text_hash(plain_text(json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":")))),
        "stamp": text_hash(item.stamp) if item.stamp is not None else 0,
    }


def plain_text(name: str) -> str:
    """A name as valid Unicode text, with surrogates replaced."""
    return name.encode("utf-8", "replace").decode()
