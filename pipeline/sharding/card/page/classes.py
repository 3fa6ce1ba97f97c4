"""The sections about splits and classes: numbers of images, and example pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.html.markup import Child, Markup, details, join, table, tag
from pipeline.sharding.card.contact_sheet import choose_ids
from pipeline.sharding.card.data_card import unlabelled_count
from pipeline.sharding.card.page.charts import curve
from pipeline.sharding.card.page.gallery import Gallery, by_hash, rows_by_label, thumbs
from pipeline.sharding.format.index import SPLITS, SampleIndex

# With more classes than this, only the largest and smallest are shown, and a curve of all.
_MAX_BARS, _AT_EITHER_END = 64, 24
_MAX_ROWS = 2000  # of the table of classes
_MAX_SHEETS = 64  # classes with pictures
_PICTURES_OF_SPLIT = {"train": 5, "val": 1, "test": 2}  # of a class


def splits_section(card: Mapping[str, Any]) -> Markup:
    """A bar of the splits, and a table of the families."""
    rows: list[list[Child]] = [
        [entry["source"] or "-", *(f"{entry[split]:,}" for split in SPLITS), f"{entry['samples']:,}"]
        for entry in card["per_source"]
    ]
    return join(
        tag("p", "Equal images are never in two splits; neither are images of one content group.", class_="lead"),
        share_bar(card["splits"], card["samples"]),
        split_legend(card["splits"]),
        table(["family", *SPLITS, "images"], rows, numeric=frozenset(range(1, 5))) if rows else None,
    )


def balance_section(card: Mapping[str, Any]) -> Markup | None:
    """The number of images of each class; None without classes."""
    labels = card["per_label"][: card["labels"]]
    if not labels:
        return None
    ranked = sorted(labels, key=lambda entry: (-entry["samples"], entry["label"]))
    counts = [entry["samples"] for entry in ranked]
    top = max(counts[0], 1)
    many = len(ranked) > _MAX_BARS
    groups: list[tuple[str, Sequence[Mapping[str, Any]]]] = (
        [
            (f"The {_AT_EITHER_END} largest", ranked[:_AT_EITHER_END]),
            (f"The {_AT_EITHER_END} smallest", ranked[-_AT_EITHER_END:]),
        ]
        if many
        else [("", ranked)]
    )
    listed: list[list[Child]] = [
        [entry["label"], *(f"{entry[split]:,}" for split in SPLITS), f"{entry['samples']:,}"]
        for entry in ranked[:_MAX_ROWS]
    ]
    shown = "" if len(ranked) <= _MAX_ROWS else f", the first {_MAX_ROWS:,} of {len(ranked):,}"
    return join(
        tag("p", _balance_text(counts, unlabelled_count(card)), class_="lead"),
        tag(
            "figure",
            curve("Images of each class, by rank", counts, x_label="rank of the class"),
            tag("figcaption", "Images of each class, from the largest to the smallest; powers of ten."),
            class_="curve",
        )
        if many
        else None,
        [
            join(
                tag("h3", name) if name else None, tag("div", [_bar(entry, top) for entry in classes], class_="balance")
            )
            for name, classes in groups
        ],
        details(
            f"All classes in numbers{shown}",
            table(["class", *SPLITS, "images"], listed, numeric=frozenset(range(1, 5))),
        ),
    )


class ClassPictures:
    """Pictures of each class, or of 64 classes if there are more.

    Attributes:
        ids: ids of all shown samples.
    """

    def __init__(self, index: SampleIndex) -> None:
        self._index = index
        rows = rows_by_label(index)
        names = [*index.label_names, "no label"]
        non_empty = [number for number, ids in enumerate(rows) if len(ids)]
        self._classes = len(non_empty)
        self._chosen: list[tuple[str, int, list[int]]] = [
            (names[number], len(rows[number]), choose_ids(index, by_hash(index, rows[number]), _PICTURES_OF_SPLIT))
            for number in _shown_classes(non_empty, rows)
        ]
        self.ids = [id for _, _, ids in self._chosen for id in ids]

    def section(self, gallery: Gallery) -> Markup | None:
        """The section with the pictures; None without images."""
        if not self._chosen:
            return None
        scope, half = "", _MAX_SHEETS // 2
        if len(self._chosen) < self._classes:
            scope = f" Of {self._classes:,} classes the {half} largest, and {half} spread over the others."
        return join(
            tag(
                "p",
                "Chosen by a hash of their keys, of different content groups if possible. The colour of the line below "
                f"a picture shows its split.{scope}",
                class_="lead",
            ),
            split_legend(dict.fromkeys(SPLITS)),
            tag(
                "div",
                [
                    tag(
                        "div",
                        tag("h3", name, tag("span", counted(count, "image"), class_="quiet")),
                        thumbs(gallery, ids),
                        class_="card",
                    )
                    for name, count, ids in self._chosen
                ],
                class_="sheets",
            ),
        )


def share_bar(splits: Mapping[str, int], whole: int) -> Markup:
    """A bar divided by split; its full length stands for `whole` images."""
    return tag(
        "div",
        [_segment(split, splits, max(whole, 1)) for split in SPLITS if splits[split]],
        class_="share",
    )


def split_legend(splits: Mapping[str, int | None]) -> Markup:
    """The legend of the split colours, with counts if given."""
    total = sum(count or 0 for count in splits.values()) or 1
    return tag(
        "div",
        [
            tag(
                "span",
                tag("i", class_=split),
                split if count is None else f"{split} {count:,} ({count / total:.1%})",
            )
            for split, count in splits.items()
        ],
        class_="legend",
    )


def bar_chart(counts: Mapping[str, int]) -> Markup:
    """A bar chart of the counts, in one colour."""
    top = max(counts.values(), default=0) or 1
    rows = [
        tag(
            "div",
            tag("span", name, class_="name", title=name),
            tag("span", tag("span", class_="all", style=f"width:{100 * count / top:.2f}%"), class_="share"),
            tag("span", f"{count:,}", class_="count"),
            class_="row",
        )
        for name, count in counts.items()
    ]
    return tag("div", rows, class_="balance kinds")


def _shown_classes(non_empty: Sequence[int], rows: Sequence[NDArray[np.int64]]) -> list[int]:
    """The classes with pictures: all if they are few, else the largest and an even selection of the rest by size."""
    if len(non_empty) <= _MAX_SHEETS:
        return list(non_empty)
    ranked = sorted(non_empty, key=lambda number: (-len(rows[number]), number))
    half = _MAX_SHEETS // 2
    rest = ranked[half:]
    positions = np.linspace(0, len(rest) - 1, _MAX_SHEETS - half).round().astype(int).tolist()
    return ranked[:half] + [rest[position] for position in positions]


def _bar(entry: Mapping[str, Any], top: int) -> Markup:
    segments = [_segment(split, entry, top) for split in SPLITS if entry[split]]
    return tag(
        "div",
        tag("span", entry["label"], class_="name", title=entry["label"]),
        tag("span", segments, class_="share"),
        tag("span", f"{entry['samples']:,}", class_="count"),
        class_="row",
    )


def _segment(split: str, counts: Mapping[str, Any], whole: int) -> Markup:
    width = f"width:{100 * counts[split] / whole:.2f}%"
    return tag("span", class_=split, style=width, title=f"{split}: {counts[split]:,}")


def _balance_text(counts: Sequence[int], without: int) -> str:
    """A sentence with the smallest, median and largest class, and the ratio of largest to smallest."""
    smallest, median, largest = counts[-1], counts[len(counts) // 2], counts[0]
    ratio = f", {largest / smallest:,.1f} times the smallest" if smallest else ""
    unlabelled = f" Images without a label: {without:,}." if without else ""
    return (
        f"{counted(len(counts), 'class', 'classes')}; the largest has {counted(largest, 'image')}{ratio}; "
        f"the median is {median:,}, the smallest has {smallest:,}.{unlabelled}"
    )
