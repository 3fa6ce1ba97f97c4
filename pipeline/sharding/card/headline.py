"""The headline of a shards artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def shards_headline(summary: Mapping[str, Any]) -> str:
    """The headline from the summary of shard-dataset: images by split, items left out, changes of a delta."""
    splits = " + ".join(f"{summary[name]:,} {name}" for name in ("train", "val", "test") if name in summary)
    words = f"{splits} images, {summary.get('labels', 0)} labels, {summary.get('unreadable', 0)} unreadable"
    if "passed_over" in summary:
        words += f", {summary['passed_over']['count']:,} passed over"
    if "new" in summary:
        changes = (f"{summary[name]:,} {name}" for name in ("new", "changed", "removed"))
        words += f"; {', '.join(changes)}"
    rare = summary.get("rare_classes", {})
    if rare:
        what = "dropped" if rare["rule"] == "drop" else "in train only"
        classes = "class" if rare["classes"] == 1 else "classes"
        words += f"; {rare['classes']:,} rare {classes} {what} ({rare['images']:,} images)"
    return "; note: ".join([words, *summary.get("notes", ())])
