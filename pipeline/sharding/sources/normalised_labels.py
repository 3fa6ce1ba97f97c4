"""Normalises the labels, taxonomy paths and groups of any source, see `labels.normalise_label`.

Labels that look the same are one class: "Café" may be written with the letter é or with e and a combining accent, and a
folder's name may end with a space. So are groups: the images of one photographer must not be in two splits because the
name is written in two ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.labels import Spellings, normalise_label


def with_normalised_labels(collection: Collection) -> Collection:
    """The collection with normalised labels, taxonomy and groups; a note lists the merged labels."""
    spellings = Spellings()
    for name in collection.label_names:
        spellings.add(name, _normalise(name))
    label_names = tuple(dict.fromkeys(map(_normalise, collection.label_names)))
    notes = (*collection.notes, *spellings.notes())

    def items() -> Iterator[Item]:
        return map(_normalise_item, collection.items())

    return replace(collection, items=items, label_names=label_names, notes=notes)


def _normalise_item(item: Item) -> Item:
    label = item.label if item.label is None else _normalise(item.label)
    group = item.group if item.group is None else _normalise(item.group)
    taxonomy = tuple(map(_normalise, item.taxonomy))
    if (label, group, taxonomy) == (item.label, item.group, item.taxonomy):
        return item
    return replace(item, label=label, group=group, taxonomy=taxonomy)


def _normalise(name: str) -> str:
    """The normalised name; a name of only white space is unchanged, because it is a class too."""
    return normalise_label(name) or name
