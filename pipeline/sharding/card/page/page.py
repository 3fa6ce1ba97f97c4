"""The page: key numbers, then splits, classes, pictures, sizes, captions, and items left out.

It does not depend on time, machine or user. The number of images read is bounded: some of each of 64 classes, 12 with
captions, 12 duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.config import Config
from pipeline.html.document import document, number_card
from pipeline.html.markup import Markup, tag
from pipeline.sharding.card.data_card import in_words_of_rare, unlabelled
from pipeline.sharding.card.page.classes import Sheets, balance_section, share_bar, split_key, splits_section
from pipeline.sharding.card.page.gallery import Gallery
from pipeline.sharding.card.page.left_out import EqualSet, duplicates_section, passed_over_section, quarantine_section
from pipeline.sharding.card.page.look import CSS
from pipeline.sharding.card.page.measures import Captioned, images_section, in_bytes
from pipeline.sharding.card.page.origin import licences_section, options_section
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.writing.chunks import Unreadable


def card_page(
    card: Mapping[str, Any],
    index: SampleIndex,
    image: Callable[[int], bytes],
    *,
    equal: Sequence[EqualSet],
    unreadable: Sequence[Unreadable],
    config: Config,
) -> str:
    """The whole card as one self-contained HTML document.

    Args:
        card: the content of data_card.json.
        image: the encoded image of a sample, by its id.
        equal: sets of equal images to show.
        unreadable: the unreadable items of this run.
        config: the config of the stage.
    """
    gallery = Gallery(index, image)
    sheets, captioned = Sheets(index), Captioned(index)
    gallery.read([*sheets.ids, *captioned.ids, *(one.shown for one in equal if one.shown is not None)])
    sections: list[tuple[str, str, Markup | None]] = [
        ("splits", "Splits", splits_section(card)),
        ("classes", "Class balance", balance_section(card)),
        ("samples", "Samples of each class", sheets.section(gallery)),
        ("images", "Images", images_section(card, index)),
        ("captions", "Captions", captioned.section(card, gallery)),
        ("duplicates", "Duplicates", duplicates_section(card, equal, gallery)),
        ("quarantine", "Quarantine", quarantine_section(card, unreadable)),
        ("passed-over", "Passed over", passed_over_section(card)),
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
        footer="Made by Tutelage's stage shard-dataset. The same counts for programs: data_card.json.",
        css=CSS,
    )


def _notes(card: Mapping[str, Any]) -> list[str]:
    rare = in_words_of_rare(card.get("rare_classes", {}))
    return [*card.get("notes", ()), *([rare] if rare else [])]


def _lead(card: Mapping[str, Any]) -> str:
    sources = len(card["per_source"])
    by = f", from {sources} sources" if sources > 1 else ""
    told = (
        f"{card['samples']:,} images of {card['content_groups']:,} content groups{by}, with {card['labels']:,} labels "
        f"and {card['captions']:,} captions."
    )
    delta = card.get("delta")
    if delta is None:
        return told
    return (
        f"{told} A delta on {delta['base']}: {delta['new']:,} new, {delta['changed']:,} changed, "
        f"{delta['removed']:,} removed."
    )


def _numbers(card: Mapping[str, Any], unreadable: int) -> Markup:
    samples = max(card["samples"], 1)
    dropped = sum(count for name, count in card["duplicates"].items() if name.startswith("dropped"))
    capped = sum(card["capped"].values())
    without = unlabelled(card)
    sizes = card["image_sizes"]
    middle = f"{sizes['width']['median']:,} x {sizes['height']['median']:,} pixels in the middle" if sizes else ""
    of_classes = f"{without:,} images have no label" if without else "every image has one"
    of_captions = f"{card['captions'] / samples:.1f} an image" if card["captions"] else "none"
    rare = card.get("rare_classes", {})
    gone = rare["images"] if rare.get("rule") == "drop" else 0
    left = [
        f"{dropped:,} duplicates",
        f"{unreadable:,} quarantined",
        *([f"{capped:,} over a cap"] if capped else []),
        *([f"{gone:,} of {rare['classes']:,} rare classes"] if gone else []),
    ]
    return tag(
        "div",
        tag(
            "div",
            tag("p", "images", class_="label"),
            tag("p", f"{card['samples']:,}", class_="figure-value"),
            share_bar(card["splits"], samples),
            split_key(dict.fromkeys(card["splits"])),
            class_="card",
        ),
        number_card("classes", f"{card['labels']:,}", of_classes),
        number_card("captions", f"{card['captions']:,}", of_captions),
        number_card("size", in_bytes(card["image_bytes"]), middle),
        number_card("left out", f"{dropped + unreadable + capped + gone:,}", ", ".join(left)),
        class_="cards",
    )
