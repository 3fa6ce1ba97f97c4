"""The page of the data card: key numbers, then splits, classes, pictures, sizes, captions, and items left out.

It does not depend on time, machine or user. The number of images that it reads is bounded: some of each of 64 classes,
12 with captions, 12 duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.config import Config
from pipeline.counted import counted
from pipeline.html.document import document, number_card
from pipeline.html.markup import Markup, tag
from pipeline.sharding.card.data_card import dropped_duplicates, groups_phrase, rare_classes_text, unlabelled_count
from pipeline.sharding.card.page.classes import ClassPictures, balance_section, share_bar, split_legend, splits_section
from pipeline.sharding.card.page.gallery import Gallery
from pipeline.sharding.card.page.images_and_captions import CaptionExamples, images_section, in_bytes
from pipeline.sharding.card.page.left_out import EqualSet, duplicates_section, quarantine_section, skipped_section
from pipeline.sharding.card.page.origin import licences_section, options_section
from pipeline.sharding.card.page.style import CSS
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.writing.chunks import Unreadable


def card_page(
    card: Mapping[str, Any],
    index: SampleIndex,
    read_image: Callable[[int], bytes],
    *,
    equal: Sequence[EqualSet],
    unreadable: Sequence[Unreadable],
    config: Config,
) -> str:
    """The whole card as one self-contained HTML document.

    Args:
        card: the content of data_card.json.
        read_image: returns the encoded image of a sample, by its id.
        equal: sets of equal images to show.
        unreadable: the unreadable items of this run.
        config: the config of the stage.
    """
    gallery = Gallery(index, read_image)
    class_pictures, caption_examples = ClassPictures(index), CaptionExamples(index)
    gallery.read(
        [
            *class_pictures.ids,
            *caption_examples.ids,
            *(equal_set.shown for equal_set in equal if equal_set.shown is not None),
        ]
    )
    sections: list[tuple[str, str, Markup | None]] = [
        ("splits", "Splits", splits_section(card)),
        ("classes", "Class balance", balance_section(card)),
        ("samples", "Samples of each class", class_pictures.section(gallery)),
        ("images", "Images", images_section(card, index)),
        ("captions", "Captions", caption_examples.section(card, gallery)),
        ("duplicates", "Duplicates", duplicates_section(card, equal, gallery)),
        ("quarantine", "Quarantine", quarantine_section(card, unreadable)),
        ("skipped", "Skipped files", skipped_section(card)),
        ("licences", "Sources and licences", licences_section(card)),
        ("options", "Options", options_section(config)),
    ]
    return document(
        f"{card['title']} · data card",
        kind="data card",
        heading=card["title"] or "Data",
        introduction=[
            tag("p", _lead(card), class_="lead"),
            [tag("p", f"Note: {note}.", class_="lead") for note in _notes(card)],
            _numbers(card, len(unreadable)),
        ],
        sections=sections,
        footer="Created by Tutelage's stage shard-dataset. data_card.json has the same counts for programs.",
        css=CSS,
    )


def _notes(card: Mapping[str, Any]) -> list[str]:
    rare = rare_classes_text(card.get("rare_classes", {}))
    return [*card.get("notes", ()), *([rare] if rare else [])]


def _lead(card: Mapping[str, Any]) -> str:
    families = len(card["per_source"])  # one entry per family
    by = f", in {families} families" if families > 1 else ""
    text = (
        f"{counted(card['samples'], 'image')}{groups_phrase(card)}{by}, with {counted(card['labels'], 'label')} "
        f"and {counted(card['captions'], 'caption')}."
    )
    delta = card.get("delta")
    if delta is None:
        return text
    return (
        f"{text} A delta on {delta['base']}: {delta['new']:,} new, {delta['changed']:,} changed, "
        f"{delta['removed']:,} removed."
    )


def _numbers(card: Mapping[str, Any], unreadable: int) -> Markup:
    samples = max(card["samples"], 1)
    dropped = dropped_duplicates(card)
    capped = sum(card["capped"].values())
    without = unlabelled_count(card)
    sizes = card["image_sizes"]
    median = f"median {sizes['width']['median']:,} x {sizes['height']['median']:,} pixels" if sizes else ""
    class_note = f"{counted(without, 'image')} without one" if without else "every image has one"
    caption_note = f"{card['captions'] / samples:.1f} per image" if card["captions"] else "none"
    rare = card.get("rare_classes", {})
    dropped_rare = rare["images"] if rare.get("rule") == "drop" else 0
    left = [
        counted(dropped, "duplicate"),
        f"{unreadable:,} quarantined",
        *([f"{capped:,} over a cap"] if capped else []),
        *([f"{dropped_rare:,} of {rare['classes']:,} rare classes"] if dropped_rare else []),
    ]
    return tag(
        "div",
        tag(
            "div",
            tag("p", "images", class_="label"),
            tag("p", f"{card['samples']:,}", class_="figure-value"),
            share_bar(card["splits"], samples),
            split_legend(dict.fromkeys(card["splits"])),
            class_="card",
        ),
        number_card("classes", f"{card['labels']:,}", class_note),
        number_card("captions", f"{card['captions']:,}", caption_note),
        number_card("size", in_bytes(card["image_bytes"]), median),
        number_card("left out", f"{dropped + unreadable + capped + dropped_rare:,}", ", ".join(left)),
        class_="cards",
    )
