"""Normalised labels, taxonomy paths and groups of any source: see `labels.normalised_label`.

"Café" may be written with the letter é or with e and a combining accent; a folder's name may end with a space. Such
texts look the same, so they are one class. Groups are normalised too: the images of one group, e.g. a photographer,
must not be in two splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.labels import Spellings, normalised_label


def with_normalised_labels(collection: Collection) -> Collection:
    """The collection with normalised labels, taxonomy and groups; a note lists the merged labels."""
    spellings = Spellings()
    for name in collection.label_names:
        spellings.add(name, _text(name))
    label_names = tuple(dict.fromkeys(map(_text, collection.label_names)))
    notes = (*collection.notes, *spellings.notes())

    def items() -> Iterator[Item]:
        return map(_item, collection.items())

    return replace(collection, items=items, label_names=label_names, notes=notes)


def _item(item: Item) -> Item:
    label = item.label if item.label is None else _text(item.label)
    group = item.group if item.group is None else _text(item.group)
    taxonomy = tuple(map(_text, item.taxonomy))
    if (label, group, taxonomy) == (item.label, item.group, item.taxonomy):
        return item
    return replace(item, label=label, group=group, taxonomy=taxonomy)


def _text(name: str) -> str:
    # The normalised name, but a name of only white space is unchanged, because it is a class too.
    return normalised_label(name) or name
