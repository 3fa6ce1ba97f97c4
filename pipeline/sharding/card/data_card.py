"""The data card as JSON and Markdown: counts and licences of a shards artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.counted import counted
from pipeline.errors import listed
from pipeline.html.markdown import Cell, code, link, table, text
from pipeline.service_url import without_credentials
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.sources.base import Collection
from pipeline.sharding.sources.skipped_files import SkippedFiles
from pipeline.sharding.writing.chunks import ChunkResult, Unreadable
from pipeline.sharding.writing.plan import Plan

_UNREADABLE_SHOWN = 20
_NO_LABEL = "(no label)"
DUPLICATES = {
    "found": "images with the same bytes as another image",
    "dropped_copies_of_held_out": "dropped, because the other image is held out",
    "dropped_repeats": "dropped, because the other image is in the same split, with the same label and captions",
    "dropped_conflicts": "dropped, because an equal or similar image has another label",
    "dropped_alike": "dropped as near duplicates of another image",
    "with_conflicting_labels": "sets of equal images with different labels",
}
"""The description of each count of duplicates."""


def data_card(
    index: SampleIndex,
    collection: Collection,
    plan: Plan,
    chunks: Sequence[ChunkResult],
    unreadable: Sequence[Unreadable],
    changes: Mapping[str, Any] | None = None,
    rare: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Counts and licences as plain JSON values; the same data give the same card.

    Args:
        unreadable: the unreadable items of all chunks.
        changes: of a delta: its base, and the numbers of new, changed and removed samples.
        rare: see `rare_card`.
    """
    assignment = plan.assignment
    return {
        "title": collection.title,
        **({"delta": dict(changes)} if changes else {}),
        "notes": list(collection.notes),
        **index_counts(index),
        "encoded_anew": _sum_counts(chunks, "images"),
        "caption_cleaning": _sum_counts(chunks, "captions"),
        "duplicates": {
            "found": assignment.equal_sets.copies,
            "dropped_copies_of_held_out": assignment.held_out_copies,
            "dropped_repeats": assignment.repeats,
            "dropped_alike": assignment.near_duplicates,
            "dropped_conflicts": assignment.conflicting,
            "with_conflicting_labels": assignment.conflicting_sets,
        },
        "capped": plan.capped,
        "rare_classes": dict(rare or {}),
        "unreadable": {
            "count": len(unreadable),
            "per_label": dict(sorted(Counter(item.label or _NO_LABEL for item in unreadable).items())),
            "first": [{"name": item.name, "reason": item.reason} for item in unreadable[:_UNREADABLE_SHOWN]],
        },
        "passed_over": collection.skipped.as_json(),
        "credits": [
            {
                "work": credit.work,
                "author": credit.author,
                "licence": credit.licence,
                "url": without_credentials(credit.url),
            }
            for credit in collection.credits
        ],
    }


def rare_card(rule: str, images: Mapping[str, int]) -> dict[str, Any]:
    """The card's entry about classes with fewer content groups than splits.

    Args:
        rule: refuse, drop or train_only.
        images: name of each such class -> number of its images.
    """
    return {"rule": rule, "classes": len(images), "images": sum(images.values()), "of": dict(images)}


def rare_classes_text(rare: Mapping[str, Any]) -> str:
    """A one-line description of the rare classes; "" if there are none."""
    if not rare.get("classes"):
        return ""
    what = "dropped" if rare["rule"] == "drop" else "in train only"
    names = listed([f"{name} ({images:,})" for name, images in rare["of"].items()])
    classes = counted(rare["classes"], "rare class", "rare classes")
    return f"{classes} with {counted(rare['images'], 'image')} {what}: {names}"


def index_counts(index: SampleIndex) -> dict[str, Any]:
    """The counts that need only the index."""
    return {
        "samples": len(index),
        "labels": len(index.label_names),
        "content_groups": int(np.count_nonzero(np.bincount(index.groups[index.groups >= 0]))),
        "captions": index.caption_count,
        "image_bytes": int(index.lengths.astype(np.int64).sum()),
        "splits": {split: int(index.rows(split).size) for split in SPLITS},
        "per_label": _per_label(index),
        "per_source": _per_family(index),
        "image_sizes": _image_sizes(index),
    }


def _sum_counts(chunks: Sequence[ChunkResult], kind: str) -> dict[str, int]:
    """Reason -> count, summed over all chunks."""
    total: Counter[str] = Counter()
    for result in chunks:
        total.update(result.counts[kind])
    return dict(sorted(total.items()))


def _per_label(index: SampleIndex) -> list[dict[str, Any]]:
    """One entry per label, by number, then one for the samples without a label, if any."""
    counts = _per_split(index.labels, index.splits, len(index.label_names))
    entries = [{"label": name, **_split_counts(counts[number])} for number, name in enumerate(index.label_names)]
    without = counts[len(index.label_names)]
    return [*entries, *([{"label": _NO_LABEL, **_split_counts(without)}] if without.any() else [])]


def unlabelled_count(card: Mapping[str, Any]) -> int:
    """Number of images without a label, from the entry after those of the labels."""
    return sum(entry["samples"] for entry in card["per_label"][card["labels"] :])


def _per_family(index: SampleIndex) -> list[dict[str, Any]]:
    counts = _per_split(index.family_codes, index.splits, len(index.family_names))
    return [{"source": name, **_split_counts(counts[code])} for code, name in enumerate(index.family_names)]


def _per_split(values: Any, splits: Any, count: int) -> Any:
    """[count + 1, splits] number of samples with each value in each split; the last row: samples without a value."""
    value = np.where(values < 0, count, values).astype(np.int64)
    return np.bincount(value * len(SPLITS) + splits, minlength=(count + 1) * len(SPLITS)).reshape(-1, len(SPLITS))


def _split_counts(counts: Any) -> dict[str, int]:
    return {"samples": int(counts.sum()), **dict(zip(SPLITS, counts.tolist(), strict=True))}


def _image_sizes(index: SampleIndex) -> dict[str, Any]:
    if not len(index):
        return {}
    sizes, counts = np.unique(index.widths.astype(np.int64) << 32 | index.heights, return_counts=True)
    common = np.lexsort((sizes, -counts))[:5]
    return {
        "width": spread(index.widths),
        "height": spread(index.heights),
        "bytes": spread(index.lengths),
        "most_common": [
            {
                "width": int(sizes[position] >> 32),
                "height": int(sizes[position] & 0xFFFFFFFF),
                "samples": int(counts[position]),
            }
            for position in common
        ],
    }


def spread(values: Any) -> dict[str, int]:
    """Minimum, median and maximum."""
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}


def dropped_duplicates(card: Mapping[str, Any]) -> int:
    """Number of images that were left out because they repeat another one."""
    return sum(count for name, count in card["duplicates"].items() if name.startswith("dropped"))


def groups_phrase(card: Mapping[str, Any]) -> str:
    """The number of content groups, for a sentence; empty if each image is a group of its own."""
    if card["content_groups"] == card["samples"]:
        return ""
    return f" in {counted(card['content_groups'], 'content group')} (images of the same content)"


def markdown(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    splits, sizes = card["splits"], card["image_sizes"]
    lines = [
        f"# {text(card['title'])}",
        "",
        f"{counted(card['samples'], 'image')} ({card['image_bytes'] / 1e6:.1f} MB){groups_phrase(card)}, with "
        f"{counted(card['labels'], 'label')} and {counted(card['captions'], 'caption')}: "
        + ", ".join(f"{count:,} {split}" for split, count in splits.items())
        + ".",
        "",
        *(_delta_lines(card["delta"]) if "delta" in card else []),
        *(line for note in card.get("notes", ()) for line in (f"Note: {text(note)}.", "")),
        *([f"Compacted from the delta {code(card['compacted'])}.", ""] if "compacted" in card else []),
        "![Samples of every label](contact_sheet.png)",
        "",
        "## Sources and licences",
        "",
        *_table(
            ("work", "author", "licence", "where"),
            [(entry["work"], entry["author"], entry["licence"], Cell(link(entry["url"]))) for entry in card["credits"]],
        ),
        "",
        *_table(("family", "images", *SPLITS), [tuple(entry.values()) for entry in card["per_source"]]),
        "",
        "## Images",
        "",
        *_table(
            ("", "min", "median", "max"),
            [(name, *sizes[name].values()) for name in ("width", "height", "bytes") if name in sizes],
        ),
        "",
        f"Re-encoded: {_counts_text(card['encoded_anew'])}. Captions: {_counts_text(card['caption_cleaning'])}.",
        "",
        "## What was left out",
        "",
        f"- {_duplicates(card, 'found')}; of these",
        f"  - {_duplicates(card, 'dropped_copies_of_held_out')}",
        f"  - {_duplicates(card, 'dropped_repeats')}",
        f"- {_duplicates(card, 'with_conflicting_labels')}",
        f"- {_duplicates(card, 'dropped_conflicts')}",
        f"- {_duplicates(card, 'dropped_alike')}",
        f"- training images left out by the caps: {_counts_text(card['capped'])}",
        *([f"- {text(rare)}"] if (rare := rare_classes_text(card.get("rare_classes", {}))) else []),
        f"- unreadable: {card['unreadable']['count']} (all of them, with reasons: quarantine.parquet)",
        *(f"  - {text(entry['name'])}: {text(entry['reason'])}" for entry in card["unreadable"]["first"]),
        *_skipped_lines(card.get("passed_over", {})),
        "",
        "## Labels",
        "",
        *_table(("label", "images", *SPLITS), [tuple(entry.values()) for entry in card["per_label"]]),
    ]
    return "\n".join(lines) + "\n"


def _duplicates(card: Mapping[str, Any], name: str) -> str:
    return f"{DUPLICATES[name]}: {card['duplicates'][name]}"


def _delta_lines(delta: Mapping[str, Any]) -> list[str]:
    return [
        f"A delta on {code(delta['base'])} ({counted(delta['base_samples'], 'sample')}), whose shards it needs until "
        "it is compacted: "
        f"{delta['new']:,} new, {delta['changed']:,} changed, {delta['removed']:,} removed, {delta['live']:,} live. "
        f"Gone from the base: {_counts_text(delta['why'])} (tombstones.parquet). Re-encoded images and cleaned "
        "captions are counted below for the items that this run read.",
        "",
    ]


def _skipped_lines(skipped: Mapping[str, Any]) -> list[str]:
    if not skipped.get("count"):
        return []
    kinds = ", ".join(f"{count:,} {text(kind)}" for kind, count in skipped["per_kind"].items())
    first = ", ".join(map(text, skipped["first"]))
    photos = SkippedFiles.of_json(skipped).unread_photos
    return [
        f"- skipped in the source, because they are not images of a supported format: {kinds} (the first: {first})",
        *([f"  - {text(photos)}"] if photos else []),
    ]


def _counts_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in counts.items() if count) or "none"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return ["none"]
    return table(head, rows, right=[isinstance(cell, int) for cell in rows[0]])
