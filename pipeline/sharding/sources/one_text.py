"""One text for one label and one group, whatever source they come from: see `labels.one_text`.

"Café" may be written with one letter é or with e and an accent behind it; a folder's name may end with a space. A
reader sees one class, so there is one. The same holds for groups, or a photographer would be in two splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.errors import listed
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.labels import one_text


def with_one_text(collection: Collection) -> Collection:
    """The collection with labels, taxonomy and groups in one text each; labels that become one are noted."""
    texts: dict[str, list[str]] = {}
    for name in collection.label_names:
        texts.setdefault(_text(name), []).append(name)
    merged = [names for names in texts.values() if len(names) > 1]
    notes = collection.notes
    if merged:
        shown = listed([" and ".join(map(ascii, names)) for names in merged])
        notes = (*notes, f"labels that look the same were made one: {shown}")

    def items() -> Iterator[Item]:
        return map(_item, collection.items())

    return replace(collection, items=items, label_names=tuple(texts), notes=notes)


def _item(item: Item) -> Item:
    label = item.label if item.label is None else _text(item.label)
    group = item.group if item.group is None else _text(item.group)
    taxonomy = tuple(map(_text, item.taxonomy))
    if (label, group, taxonomy) == (item.label, item.group, item.taxonomy):
        return item
    return replace(item, label=label, group=group, taxonomy=taxonomy)


def _text(name: str) -> str:
    # A name of nothing but spaces stays: it is a class.
    return one_text(name) or name
