"""Sections on the run itself: its stages, its data, and their lineage."""

from __future__ import annotations

import json

from pipeline.counted import counted
from pipeline.headline import headline
from pipeline.html.markup import Child, Markup, details, join, table, tag
from pipeline.report.gallery import Gallery
from pipeline.report.run_data import RunData
from pipeline.report.wording import display_name, duration, short_key

_SPLITS = ("train", "val", "test")


def stages_section(run: RunData) -> Markup | None:
    """One row per stage: its artifact, its duration, its headline."""
    if not run.artifacts:
        return None
    longest = max(artifact.seconds for artifact in run.artifacts.values()) or 1.0
    rows: list[list[Child]] = [
        [
            tag("strong", display_name(name)),
            tag("code", artifact.stage),
            duration(artifact.seconds),
            _bar(artifact.seconds / longest),
            headline(artifact.summary),
            tag("code", short_key(artifact), title=artifact.name),
        ]
        for name, artifact in run.artifacts.items()
    ]
    return join(
        tag(
            "p",
            f"{counted(len(rows), 'artifact')}, {duration(run.seconds)} in total. "
            "A cached stage took no time in this run; its seconds are those of the run that computed it.",
            class_="lead",
        ),
        table(["artifact", "stage", "seconds", "", "headline", "key"], rows, numeric=frozenset({2}), class_="broad"),
    )


def data_section(run: RunData, gallery: Gallery) -> Markup | None:
    """The data card: counts per split and family, licences, and the contact sheet."""
    card = run.data_card
    if not card:
        return None
    counts = card.get("splits", {})
    families: list[list[Child]] = [
        [entry["source"], *[f"{entry.get(split, 0):,}" for split in _SPLITS], f"{entry['samples']:,}"]
        for entry in card.get("per_source", [])
    ]
    labels: list[list[Child]] = [
        [entry["label"], *[f"{entry.get(split, 0):,}" for split in _SPLITS], f"{entry['samples']:,}"]
        for entry in card.get("per_label", [])
    ]
    credits: list[list[Child]] = [
        [credit["work"], credit["author"], credit["licence"], tag("span", credit["url"], class_="quiet")]
        for credit in card.get("credits", [])
    ]
    left_out = card.get("duplicates", {})
    dropped = left_out.get("dropped_copies_of_held_out", 0) + left_out.get("dropped_repeats", 0)
    unreadable = card.get("unreadable", {}).get("count", 0)
    sheet = gallery.contact_sheet(f"Samples of every label of {card.get('title', 'the data')}")
    return join(
        tag(
            "p",
            f"{card.get('title', 'unnamed')}: {counted(card.get('samples', 0), 'image')}"
            + (f" of {counted(card.get('content_groups', 0), 'concept')}" if run.has_concepts else "")
            + f", {counted(card.get('labels', 0), 'label')}, {counted(card.get('captions', 0), 'caption')}: "
            + ", ".join(f"{counts.get(split, 0):,} {split}" for split in _SPLITS)
            + f". Left out: {unreadable:,} unreadable, {counted(dropped, 'duplicate')}.",
            class_="lead",
        ),
        tag("figure", sheet, tag("figcaption", "Samples of every label.")) if sheet is not None else None,
        tag("h3", "By family"),
        table(["family", *_SPLITS, "images"], families, numeric=frozenset(range(1, 5))) if families else None,
        tag("h3", "Licences") if credits else None,
        table(["work", "author", "licence", "where"], credits) if credits else None,
        details(
            f"All {len(labels)} labels", table(["label", *_SPLITS, "images"], labels, numeric=frozenset(range(1, 5)))
        )
        if labels
        else None,
    )


def lineage_section(run: RunData) -> Markup | None:
    """Keys, inputs, code and configuration of every artifact, collapsed."""
    entries = [
        details(
            f"{display_name(name)}: {artifact.name}",
            tag(
                "dl",
                *[
                    join(tag("dt", term), tag("dd", tag("code", value)))
                    for term, value in {
                        "artifact": artifact.url,
                        **{
                            f"input {key}": artifact_name
                            for key, artifact_name in artifact.manifest.get("inputs", {}).items()
                        },
                        **{
                            key.replace("_", " "): str(value)
                            for key, value in artifact.manifest.get("origin", {}).items()
                        },
                    }.items()
                ],
            ),
            tag("pre", json.dumps(artifact.config, indent=2, ensure_ascii=False)),
        )
        for name, artifact in run.artifacts.items()
    ]
    if not entries:
        return None
    lead = tag(
        "p", "Each artifact's key is a hash of its stage, its configuration and the keys of its inputs.", class_="lead"
    )
    return join(lead, *entries)


def _bar(share: float) -> Markup:
    width = f"{max(1.0, 150 * share):.0f}"
    return tag(
        "svg",
        tag("rect", width=width, height=10, rx=3, fill="var(--s1)", fill_opacity=0.55),
        class_="bar",
        viewBox="0 0 150 10",
        aria_hidden="true",
    )
