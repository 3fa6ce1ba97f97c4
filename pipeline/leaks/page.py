"""leaks.json and leaks.md: the counts, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.html.markdown import code, table, text
from pipeline.leaks.bounds import LeakCheckConfig, split_name
from pipeline.leaks.findings import Pair, SplitFinding
from pipeline.leaks.gathering import Unreadable
from pipeline.leaks.search import KINDS

_SHOWN = 50
_UNREADABLE_SHOWN = 20


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
        unreadable: name of a data set -> its images that could not be looked at, of all splits.
    """
    return {
        "data": dict(artifacts),
        "near_radius": config.near_radius,
        "near_difference": config.near_difference,
        "splits": [
            {
                "data": one.data_set,
                "split": one.split,
                "images": one.images,
                **{kind: {"images": one.found[kind], "share": one.share(kind)} for kind in KINDS},
                "flat": one.flat,
                "unreadable": one.unreadable,
            }
            for one in splits
        ],
        "pairs_listed": len(pairs),
        "pairs_with_different_labels": sum(pair.same_label is False for pair in pairs),
        "unreadable": {
            name: {"images": len(bad), "first": [one.reason for one in bad[:_UNREADABLE_SHOWN]]}
            for name, bad in unreadable.items()
        },
    }


def told(findings: Mapping[str, Any]) -> str:
    """The counts of all evaluation splits in a line."""
    images = sum(split["images"] for split in findings["splits"])
    parts = [f"{sum(split[kind]['images'] for split in findings['splits']):,} {kind}" for kind in KINDS]
    unreadable = sum(bad["images"] for bad in findings["unreadable"].values())
    unread = f", {unreadable:,} unreadable" if unreadable else ""
    return f"{', '.join(parts)} of {images:,} evaluation images{unread}"


def markdown(findings: Mapping[str, Any], pairs: Sequence[Pair]) -> str:
    """The findings as a page."""
    lines = [
        "# Leak check",
        "",
        f"{told(findings)}.",
        "",
        *(f"- {text(name)}: {code(uri)}" for name, uri in findings["data"].items()),
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
        "counts once, under the first of these. Of flat images (one colour, or nearly) and of unreadable ones only "
        "equal ones are found.",
        "",
        "![Pairs](leaks.png)",
        "",
    ]
    if pairs:
        more = f"; all {len(pairs):,} are in leaks.parquet" if len(pairs) > _SHOWN else ""
        lines += [f"## Pairs, the worst first{more}", ""]
        lines += table(
            ("kind", "difference", "bits", "evaluation image", "label", "training image", "label"),
            [
                (
                    pair.kind,
                    f"{pair.match.difference:.2f}",
                    str(pair.match.distance),
                    *(
                        cell
                        for image in (pair.evaluation, pair.train)
                        for cell in (f"{split_name(image.data_set, image.split)}: {image.key}", image.label or "")
                    ),
                )
                for pair in pairs[:_SHOWN]
            ],
        )
        lines.append("")
    for name, bad in findings["unreadable"].items():
        if bad["images"]:
            lines += [f"## Unreadable in {text(name)}: {bad['images']:,}", ""]
            lines += [*(f"- {text(one)}" for one in bad["first"]), ""]
    return "\n".join(lines)
