"""The sections about items left out: duplicates with example pictures, quarantined and skipped files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.counted import counted
from pipeline.html.markup import Child, Markup, details, join, table, tag
from pipeline.sharding.card.data_card import DUPLICATES
from pipeline.sharding.card.page.classes import bar_chart
from pipeline.sharding.card.page.gallery import Gallery
from pipeline.sharding.format.index import SPLITS
from pipeline.sharding.sources.skipped_files import SkippedFiles
from pipeline.sharding.writing.chunks import PlanColumns, Unreadable
from pipeline.sharding.writing.plan import Plan

_MAX_SETS, _MAX_ROWS_OF_SET = 12, 6
_MAX_REASONS, _MAX_LABELS, _MAX_NAMES = 24, 12, 60  # in the quarantine
_EQUAL_TEXT = (
    "Images with the same bytes are equal. Of equal images in several splits, those in test stay, else those in val."
)


@dataclass(frozen=True, slots=True)
class EqualSet:
    """A set of images with equal bytes.

    Attributes:
        shown: id of a stored image, for the picture; None: all were dropped.
        rows: (name in the source, key, label, split) of the first few; the split is None for a dropped image.
        size: number of images.
    """

    shown: int | None
    rows: tuple[tuple[str, str, str, str | None], ...]
    size: int


def equal_images(
    columns: PlanColumns,
    plan: Plan,
    key_of: Callable[[int], str],
    name_of: Callable[[int], str],
    label_names: Sequence[str],
) -> list[EqualSet]:
    """Some sets of equal images, the largest first.

    Args:
        key_of, name_of: the key of a row, and its name in the source; called for the shown rows only.
    """
    equal = plan.assignment.equal_sets
    rows, sizes = equal.rows, equal.sizes
    order = np.argsort(plan.rows)
    sorted_rows = plan.rows[order]

    def id_of(row: int) -> int | None:
        position = int(np.searchsorted(sorted_rows, row))
        return int(order[position]) if position < len(sorted_rows) and int(sorted_rows[position]) == row else None

    sets = []
    for chosen in np.argsort(-sizes, kind="stable")[:_MAX_SETS].tolist():
        members = rows[equal.starts[chosen] : equal.starts[chosen] + sizes[chosen]].tolist()
        ids = [id_of(row) for row in members]
        rows_of_set = []
        for row, id in zip(members[:_MAX_ROWS_OF_SET], ids, strict=False):
            label = int(columns.label[row])
            split = None if id is None else SPLITS[int(plan.splits[id])]
            number = plan.suffixes.get(row)
            key = key_of(row) if number is None else f"{key_of(row)}-{number}"
            rows_of_set.append((name_of(row), key, label_names[label] if label >= 0 else "no label", split))
        sets.append(EqualSet(next((id for id in ids if id is not None), None), tuple(rows_of_set), len(members)))
    return sets


def duplicates_section(card: Mapping[str, Any], sets: Sequence[EqualSet], gallery: Gallery) -> Markup:
    """The counts of duplicates found and dropped, and some sets of equal images with pictures."""
    duplicates = card["duplicates"]
    counts: list[list[Child]] = [
        [description, f"{duplicates[name]:,}"] for name, description in DUPLICATES.items() if any(duplicates.values())
    ]
    capped: list[list[Child]] = [
        [f"training images left out by the cap {name.replace('_', ' ')}", f"{count:,}"]
        for name, count in card["capped"].items()
        if count
    ]
    return join(
        tag("p", _EQUAL_TEXT if counts else "No two images have equal bytes.", class_="lead"),
        table(["", "images"], [*counts, *capped], numeric=frozenset({1})) if counts or capped else None,
        tag("h3", "Some sets of equal images") if sets else None,
        tag("div", [_set_card(item, gallery) for item in sets], class_="examples") if sets else None,
    )


def quarantine_section(card: Mapping[str, Any], unreadable: Sequence[Unreadable]) -> Markup:
    """The unreadable items, counted by reason and label, and the names of the first ones."""
    if not unreadable:
        return tag("p", "Every item of the source is an intact image; none was quarantined.", class_="lead")
    kinds = Counter(reason_kind(item.reason) for item in unreadable)
    reasons = dict(kinds.most_common(_MAX_REASONS))
    rest = len(unreadable) - sum(reasons.values())
    names = [
        tag("li", tag("strong", item.name), " ", tag("span", item.reason, class_="quiet"))
        for item in unreadable[:_MAX_NAMES]
    ]
    per_label = {name: count for name, count in card["unreadable"]["per_label"].items() if count}
    most_frequent = dict(sorted(per_label.items(), key=lambda item: (-item[1], item[0]))[:_MAX_LABELS])
    more = f"the first {len(names):,} of {len(unreadable):,}" if len(unreadable) > len(names) else f"all {len(names):,}"
    share = len(unreadable) / max(card["samples"] + len(unreadable), 1)
    return join(
        tag(
            "p",
            f"{len(unreadable):,} items, {share:.2%} of all, were left out because they cannot be trained on. "
            "All of them, with reasons: quarantine.parquet.",
            class_="lead",
        ),
        tag("h3", "Reasons"),
        bar_chart(reasons | ({"other reasons": rest} if rest else {})),
        tag("h3", "Most frequent labels") if len(most_frequent) > 1 else None,
        bar_chart(most_frequent) if len(most_frequent) > 1 else None,
        details(f"Names: {more}", tag("ul", names, class_="names")),
    )


def skipped_section(card: Mapping[str, Any]) -> Markup | None:
    """The files that the source's listing skipped, counted by kind, and the names of the first ones."""
    skipped = card["passed_over"]
    if not skipped["count"]:
        return None
    names = [tag("li", name) for name in skipped["first"]]
    more = f"the first {len(names):,} of {skipped['count']:,}"
    return join(
        tag(
            "p",
            f"Skipped in the source: {counted(skipped['count'], 'file or folder', 'files or folders')}, "
            "not images of a supported format.",
            class_="lead",
        ),
        tag("p", tag("strong", f"{photos}.")) if (photos := SkippedFiles.of_json(skipped).unread_photos) else None,
        bar_chart(skipped["per_kind"]),
        details(f"Names: {more}", tag("ul", names, class_="names")),
    )


def reason_kind(reason: str) -> str:
    """A reason without what is particular to one image: numbers, byte strings, and a leading image size."""
    kind = re.sub(r"b(?:'[^']*'|\"[^\"]*\")", "…", reason)
    kind = re.sub(r"^\d+x\d+: ", "", kind)
    return re.sub(r"\d+", "N", kind)[:120]


def _set_card(item: EqualSet, gallery: Gallery) -> Markup:
    rows = [
        tag("li", tag("span", f"{name} · {label} · dropped", class_="dropped", title=f"key {key}"))
        if split is None
        else tag("li", f"{name} · {label} · {split}", title=f"key {key}")
        for name, key, label, split in item.rows
    ]
    more = item.size - len(item.rows)
    return tag(
        "div",
        tag(
            "div",
            gallery.thumb(item.shown) if item.shown is not None else tag("span", class_="pic", title="all dropped"),
        ),
        tag(
            "div",
            tag("strong", f"{item.size:,} times"),
            tag("ul", rows),
            tag("span", f"and {more:,} more", class_="quiet") if more else None,
        ),
        class_="card",
    )
