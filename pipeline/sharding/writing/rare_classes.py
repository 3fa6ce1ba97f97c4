"""Rare classes: those with fewer content groups than splits. They are refused, dropped, or put into train as a whole.

The size of a class is its number of content groups, not of images, because a group is never in two splits. Listing the
items gives an upper bound of that number, by which classes are refused before any image is read; the exact number is
known after reading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.errors import InputError, listed
from pipeline.sharding.format.index import SPLITS
from pipeline.sharding.sources.base import Item
from pipeline.sharding.sources.labels import normalise_label
from pipeline.sharding.writing.split_config import SplitConfig

DROPPED_CLASS = -2
"""The number of a dropped class in `label_numbers`."""

_MAX_SHOWN_CLASSES = 12
_TRAIN, _VAL, _TEST = range(3)


def check_class_sizes(images_per_class: Mapping[str, int] | None, config: SplitConfig, *, has_base: bool) -> None:
    """Refuses classes with fewer images than splits, before any work; None: the counts are not known yet.

    Args:
        has_base: classes of the base may have shrunk, so only classes without an image are refused.
    Raises:
        InputError: a class is too small; the message names the classes and their counts.
    """
    if config.rare_classes != "refuse":
        return
    wanted = [] if config.rule == "given" or has_base else wanted_splits(config.val_share, config.test_share)
    images: Counter[str] = Counter()
    for name, count in (images_per_class or {}).items():
        images[normalise_label(name) or name] += count
    small = {name: (count, count) for name, count in images.items() if count < max(1, len(wanted))}
    if small:
        raise too_small_error(small, wanted)


def wanted_splits(val_share: float, test_share: float) -> list[int]:
    """The splits that every class must be in, as indices into `SPLITS`."""
    return [_TRAIN] + [_VAL] * (val_share > 0) + [_TEST] * (test_share > 0)


def too_small_error(
    classes: Mapping[str, tuple[int, int]], wanted: Sequence[int], *, copies: bool = False
) -> InputError:
    """The error for classes that are too small.

    Args:
        classes: name -> (content groups, images).
        wanted: the splits that every class must be in; []: splits are not drawn, and the classes have no image.
        copies: the groups were counted without copies of held-out images, and the message says so.
    """
    described = {name: _size_text(groups, images, copies) for name, (groups, images) in classes.items()}
    splits = f" for {len(wanted)} splits ({', '.join(SPLITS[split] for split in wanted)})" if wanted else ""
    remedy = ", or set a share in `split` to 0" if wanted else ""
    if len(described) == 1:
        ((name, count),) = described.items()
        what = f"class {name!r} has {count}{', too few' if wanted else ''}{splits}"
    else:
        smallest = sorted(described, key=lambda name: classes[name])
        sizes = [f"{name!r} with {described[name]}" for name in smallest]
        what = f"{len(described):,} classes are too small{splits}: {listed(sizes, limit=_MAX_SHOWN_CLASSES)}"
    return InputError(f"{what}; add images, remove the class, set split.rare_classes to drop or train_only{remedy}")


def label_numbers(count: int, dropped: Collection[int]) -> NDArray[np.int32]:
    """[count + 1] new number of each label, `DROPPED_CLASS` if it is dropped; the last entry, -1, means no label."""
    remains = np.ones(count, dtype=np.bool_)
    remains[list(dropped)] = False
    numbers = np.where(remains, np.cumsum(remains) - 1, DROPPED_CLASS)
    return np.append(numbers, -1).astype(np.int32)


class LabelSizes:
    """Counts an upper bound of each class's content groups while a source's items are listed.

    Args:
        known: labels of a base; their sizes are not checked.

    Attributes:
        first_items: label -> numbers of its first items in source order; labels in `known` are absent.
    """

    def __init__(self, config: SplitConfig, known: Collection[str] = ()) -> None:
        self._config = config
        self._known = frozenset(known)
        self._images: Counter[str] = Counter()
        self._groups: dict[str, set[str]] = {}
        self._given_splits: set[str] = set()
        self.first_items: dict[str, list[int]] = {}

    def count(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yields the items unchanged and counts them."""
        for number, item in enumerate(items):
            self._add(item, number)
            yield item

    def _add(self, item: Item, number: int) -> None:
        config, label = self._config, item.label
        if config.holdout_family is not None and item.family == config.holdout_family:
            self._given_splits.add("test")
            return
        if item.split in ("val", "test"):
            self._given_splits.add(item.split)
            return
        if label is None or label in self._known:
            return
        self._images[label] += 1
        groups = self._groups.setdefault(label, set())
        # An image without a group counts as a group of its own: an upper bound, since copies may be listed too.
        named = item.group is not None and config.rule == "group"
        if len(groups) < len(SPLITS):
            groups.add(f"group {item.group}" if named else f"image {number}")
            self.first_items.setdefault(label, []).append(number)

    def check(self, label_names: Sequence[str], exempt: Collection[str] = ()) -> None:
        """Refuses classes whose upper bound is already too small.

        Raises:
            InputError: a class is too small; the message names the classes and their counts.
        """
        config = self._config
        if config.rule == "given" or config.rare_classes != "refuse":
            return
        wanted = wanted_splits(
            0 if "val" in self._given_splits else config.val_share,
            0 if "test" in self._given_splits else config.test_share,
        )
        small = {
            name: (len(self._groups.get(name, ())), self._images[name])
            for name in label_names
            if name not in self._known and name not in exempt and len(self._groups.get(name, ())) < len(wanted)
        }
        if small:
            raise too_small_error(small, wanted)


def _size_text(groups: int, images: int, copies: bool) -> str:
    image_count, group_count = counted(images, "image"), counted(groups, "content group")
    if copies:
        return f"{image_count} (without copies of held-out ones, {group_count})"
    return f"{image_count} in {group_count}" if images != groups else image_count
