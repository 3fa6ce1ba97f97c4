"""What a listing tells of an item without reading its image: enough to notice that one is new, gone or changed."""

from __future__ import annotations

import json
from typing import Any

from pipeline.counter_rng import text_hash
from pipeline.sharding.sources.base import Item


def remembered(item: Item) -> dict[str, Any]:
    """Its name as text; as 64-bit numbers its name, everything said of it beside the image, and its stamp (0: none)."""
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
    """A name as text that can be written anywhere."""
    return name.encode("utf-8", "replace").decode()
