"""The headline of a shards artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.counted import counted
from pipeline.sharding.format.index import SPLITS


def shards_headline(summary: Mapping[str, Any]) -> str:
    """The headline from shard-dataset's summary: images by split, files left out, a delta's changes."""
    splits = " + ".join(f"{summary[name]:,} {name}" for name in SPLITS if name in summary)
    is_single = sum(summary.get(name, 0) for name in SPLITS) == 1
    labels = counted(summary.get("labels", 0), "label")
    words = f"{splits} image{'' if is_single else 's'}, {labels}, {summary.get('unreadable', 0)} unreadable"
    if "dropped_duplicates" in summary:
        words += f", {counted(summary['dropped_duplicates'], 'duplicate')} removed"
    if "passed_over" in summary:
        words += f", {summary['passed_over']['count']:,} skipped"
    if "new" in summary:
        changes = (f"{summary[name]:,} {name}" for name in ("new", "changed", "removed"))
        words += f"; {', '.join(changes)}"
    rare = summary.get("rare_classes", {})
    if rare:
        what = "dropped" if rare["rule"] == "drop" else "in train only"
        classes = counted(rare["classes"], "rare class", "rare classes")
        words += f"; {classes} {what} ({counted(rare['images'], 'image')})"
    return "; note: ".join([words, *summary.get("notes", ())])
