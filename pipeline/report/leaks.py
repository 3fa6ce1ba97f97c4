"""The section on leaks: evaluation images that occur in the training data, if the run checked that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.html.markup import Child, Markup, join, table, tag
from pipeline.leaks.bounds import SHEET, split_name
from pipeline.leaks.kinds import KINDS
from pipeline.leaks.page import counts_line
from pipeline.report.gallery import sheet_of
from pipeline.report.run_data import RunData
from pipeline.report.wording import percent


def leaks_section(run: RunData) -> Markup | None:
    """Counts for each evaluation split, and the contact sheet of pairs."""
    findings, artifact = run.leaks, run.artifacts.get("leaks")
    if not findings or artifact is None:
        return None
    rows: list[list[Child]] = [
        [split_name(split["data"], split["split"]), f"{split['images']:,}", *(_found(split[kind]) for kind in KINDS)]
        for split in findings["splits"]
    ]
    sheet = sheet_of(artifact, SHEET, "Evaluation images next to training images") if findings["pairs_listed"] else None
    return join(
        tag(
            "p",
            f"Images that a model may have seen in training: {counts_line(findings)}. Exact: the bytes of a training "
            "image; pixels: its pixels in other bytes; near: it looks the same.",
            class_="lead",
        ),
        table(["evaluation split", "images", *KINDS], rows, numeric=frozenset(range(1, 2 + len(KINDS)))),
        tag("figure", sheet, tag("figcaption", "Pairs, the worst first; every pair is in leaks.parquet."))
        if sheet is not None
        else None,
    )


def _found(matches: Mapping[str, Any]) -> str:
    return f"{matches['images']:,} ({percent(matches['share'])})"
