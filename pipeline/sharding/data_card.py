"""The data card: what is in a shards artifact, counted, with licences; for programs and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.sharding.index import SPLITS, SampleIndex
from pipeline.sharding.intake import Unreadable
from pipeline.sharding.sources.base import Collection
from pipeline.sharding.split import Assignment

_UNREADABLE_SHOWN = 20
_NO_LABEL = "(no label)"


def data_card(
    index: SampleIndex, collection: Collection, assignment: Assignment, unreadable: Sequence[Unreadable]
) -> dict[str, Any]:
    """Counts and licences as plain JSON values; the same data give the same card."""
    return {
        "title": collection.title,
        "samples": len(index),
        "labels": len(index.label_names),
        "content_groups": int(np.unique(index.groups).size),
        "captions": index.caption_count,
        "image_bytes": int(index.lengths.astype(np.int64).sum()),
        "splits": {split: int(index.rows(split).size) for split in SPLITS},
        "per_label": _per_label(index),
        "per_source": _per_source(index),
        "image_sizes": _image_sizes(index),
        "duplicates": {
            "found": assignment.copies,
            "dropped_copies_of_held_out": assignment.held_out_copies,
            "dropped_repeats": assignment.repeats,
            "kept": assignment.copies - assignment.held_out_copies - assignment.repeats,
            "with_conflicting_labels": assignment.conflicts,
        },
        "unreadable": {
            "count": len(unreadable),
            "per_label": dict(sorted(Counter(one.label or _NO_LABEL for one in unreadable).items())),
            "first": [{"name": one.name, "reason": one.reason} for one in unreadable[:_UNREADABLE_SHOWN]],
        },
        "credits": [
            {"work": credit.work, "author": credit.author, "licence": credit.licence, "url": credit.url}
            for credit in collection.credits
        ],
    }


def _per_label(index: SampleIndex) -> list[dict[str, Any]]:
    """One entry a label, in the order of the numbers, and one for the samples without."""
    rows = [*enumerate(index.label_names), (-1, _NO_LABEL)]
    entries = []
    for number, name in rows:
        splits = index.splits[index.labels == number]
        if number >= 0 or splits.size:
            counts = {split: int((splits == code).sum()) for code, split in enumerate(SPLITS)}
            entries.append({"label": name, "samples": int(splits.size), **counts})
    return entries


def _per_source(index: SampleIndex) -> list[dict[str, Any]]:
    entries = []
    for code, name in enumerate(index.source_names):
        splits = index.splits[index.source_codes == code]
        counts = {split: int((splits == number).sum()) for number, split in enumerate(SPLITS)}
        entries.append({"source": name, "samples": int(splits.size), **counts})
    return entries


def _image_sizes(index: SampleIndex) -> dict[str, Any]:
    if not len(index):
        return {}
    sizes = Counter(zip(index.widths.tolist(), index.heights.tolist(), strict=True))
    common = sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))[:5]
    return {
        "width": _spread(index.widths),
        "height": _spread(index.heights),
        "bytes": _spread(index.lengths),
        "most_common": [{"width": w, "height": h, "samples": count} for (w, h), count in common],
    }


def _spread(values: Any) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}


def markdown(card: dict[str, Any]) -> str:
    """The card as a page."""
    splits, sizes, duplicates = card["splits"], card["image_sizes"], card["duplicates"]
    lines = [
        f"# {card['title']}",
        "",
        f"{card['samples']:,} images ({card['image_bytes'] / 1e6:.1f} MB) of {card['content_groups']:,} content "
        f"groups, with {card['labels']} labels and {card['captions']:,} captions: "
        + ", ".join(f"{count:,} {split}" for split, count in splits.items())
        + ".",
        "",
        "![Samples of every label](contact_sheet.png)",
        "",
        "## Sources and licences",
        "",
        *_table(("work", "author", "licence", "where"), [tuple(credit.values()) for credit in card["credits"]]),
        "",
        *_table(("source", "images", *SPLITS), [tuple(entry.values()) for entry in card["per_source"]]),
        "",
        "## Images",
        "",
        *_table(
            ("", "min", "median", "max"),
            [(name, *sizes[name].values()) for name in ("width", "height", "bytes") if name in sizes],
        ),
        "",
        "## Duplicates and unreadable images",
        "",
        f"- images whose bytes another image has too: {duplicates['found']}; of these",
        f"  - dropped, because the other is held out: {duplicates['dropped_copies_of_held_out']}",
        f"  - dropped, because the other is in the same split, with the same label and captions: "
        f"{duplicates['dropped_repeats']}",
        f"  - kept, in the same split with other labels or captions: {duplicates['kept']}",
        f"- sets of equal images with different labels: {duplicates['with_conflicting_labels']}",
        f"- unreadable: {card['unreadable']['count']} (all of them, with reasons: quarantine.parquet)",
        *(f"  - {one['name']}: {one['reason']}" for one in card["unreadable"]["first"]),
        "",
        "## Labels",
        "",
        *_table(("label", "images", *SPLITS), [tuple(entry.values()) for entry in card["per_label"]]),
    ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return ["none"]
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    numeric = [isinstance(cell, int) for cell in rows[0]]
    rule = ["---:" if right else "---" for right in numeric]
    return ["| " + " | ".join(row) + " |" for row in (list(head), rule, *cells)]
