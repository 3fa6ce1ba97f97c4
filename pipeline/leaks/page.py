"""leaks.json and leaks.md: the counts, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.counted import counted
from pipeline.html.markdown import code, table, text
from pipeline.leaks.bounds import LeakCheckConfig, split_name
from pipeline.leaks.findings import Pair, SplitFinding
from pipeline.leaks.kinds import KINDS
from pipeline.leaks.signature_cache import Unreadable

_MAX_PAIRS = 50
_MAX_UNREADABLE = 20


def findings_json(
    artifacts: Mapping[str, str],
    config: LeakCheckConfig,
    splits: Sequence[SplitFinding],
    pairs: Sequence[Pair],
    unreadable: Mapping[str, Sequence[Unreadable]],
) -> dict[str, Any]:
    """The counts and shares as plain JSON values.

    Args:
        artifacts: name of a data set in the check -> STAGE/KEY.
        unreadable: name of a data set -> its damaged images, of all splits.
    """
    return {
        "data": dict(artifacts),
        "near_radius": config.near_radius,
        "near_difference": config.near_difference,
        "splits": [
            {
                "data": split.data_set,
                "split": split.split,
                "images": split.images,
                **{kind: {"images": split.found[kind], "share": split.share(kind)} for kind in KINDS},
                "flat": split.flat,
                "unreadable": split.unreadable,
            }
            for split in splits
        ],
        "pairs_listed": len(pairs),
        "pairs_with_different_labels": sum(pair.same_label is False for pair in pairs),
        "unreadable": {
            name: {"images": len(damaged), "first": [image.reason for image in damaged[:_MAX_UNREADABLE]]}
            for name, damaged in unreadable.items()
        },
    }


def counts_line(findings: Mapping[str, Any]) -> str:
    """The counts over all evaluation splits in one line."""
    images = sum(split["images"] for split in findings["splits"])
    counts = [f"{sum(split[kind]['images'] for split in findings['splits']):,} {kind}" for kind in KINDS]
    unreadable = sum(damaged["images"] for damaged in findings["unreadable"].values())
    damaged_count = f", {unreadable:,} unreadable" if unreadable else ""
    return f"{', '.join(counts)} of {counted(images, 'evaluation image')}{damaged_count}"


def markdown(findings: Mapping[str, Any], pairs: Sequence[Pair]) -> str:
    """The findings as a page."""
    lines = [
        "# Leak check",
        "",
        f"{counts_line(findings)}.",
        "",
        *(f"- {text(name)}: {code(artifact_name)}" for name, artifact_name in findings["data"].items()),
        "",
        *table(
            ("evaluation split", "images", *KINDS, "flat", "unreadable"),
            [
                (
                    split_name(split["data"], split["split"]),
                    f"{split['images']:,}",
                    *(f"{split[kind]['images']:,} ({split[kind]['share']:.2%})" for kind in KINDS),
                    f"{split['flat']:,}",
                    f"{split['unreadable']:,}",
                )
                for split in findings["splits"]
            ],
        ),
        "",
        "exact: the bytes of a training image; pixels: its pixels in other bytes; near: it looks the same. An image "
        "counts once, under the first of these. Flat images (nearly one colour) and unreadable images match only if "
        "they are equal.",
        "",
        "![Pairs](leaks.png)",
        "",
    ]
    if pairs:
        more = f"; all {len(pairs):,} are in leaks.parquet" if len(pairs) > _MAX_PAIRS else ""
        lines += [f"## Pairs, the worst first{more}", ""]
        lines += table(
            ("kind", "difference", "bits", "evaluation image", "label", "key", "training image", "label", "key"),
            [
                (
                    pair.kind,
                    f"{pair.match.difference:.2f}",
                    str(pair.match.distance),
                    *(
                        cell
                        for image in (pair.evaluation, pair.train)
                        for cell in (
                            f"{split_name(image.data_set, image.split)}: {image.name}",
                            image.label or "",
                            image.key,
                        )
                    ),
                )
                for pair in pairs[:_MAX_PAIRS]
            ],
        )
        lines.append("")
    for name, damaged in findings["unreadable"].items():
        if damaged["images"]:
            lines += [f"## Unreadable in {text(name)}: {damaged['images']:,}", ""]
            lines += [*(f"- {text(reason)}" for reason in damaged["first"]), ""]
    return "\n".join(lines)
