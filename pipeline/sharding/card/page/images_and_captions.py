"""The sections about images and captions: histograms of sizes, bytes, aspect ratios, caption counts and lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.counted import counted
from pipeline.html.markup import Child, Markup, join, table, tag
from pipeline.sharding.card.data_card import spread
from pipeline.sharding.card.page.charts import Bin, histogram, histogram_bins
from pipeline.sharding.card.page.gallery import Gallery, by_hash
from pipeline.sharding.format.index import SampleIndex

_EXAMPLES = 12
_MAX_CAPTIONS, _MAX_CAPTION_CHARS = 5, 240  # of an example
# Range of log2(width / height): 1:4 or narrower, ..., 4:1 or wider.
_MAX_LOG_RATIO = 2.0
_RATIO_STEPS = 16


def images_section(card: Mapping[str, Any], index: SampleIndex) -> Markup | None:
    """Histograms of widths, heights, bytes and aspect ratios; None without images."""
    sizes = card["image_sizes"]
    if not sizes:
        return None
    common: list[list[Child]] = [
        [f"{size['width']} x {size['height']}", f"{size['samples']:,}", f"{size['samples'] / card['samples']:.1%}"]
        for size in sizes["most_common"]
    ]
    reencoded = ", ".join(f"{count:,} {reason}" for reason, count in card["encoded_anew"].items() if count)
    figures = [
        _figure("Width in pixels", histogram("Widths", histogram_bins(index.widths)), sizes["width"]),
        _figure("Height in pixels", histogram("Heights", histogram_bins(index.heights)), sizes["height"]),
        _figure(
            "Bytes of an image",
            histogram("Bytes", histogram_bins(index.lengths.astype(np.int64)), format_value=in_bytes),
            sizes["bytes"],
            in_bytes,
        ),
        _figure(
            "Shape: width over height",
            histogram("Shapes", _ratio_bins(index), format_value=_ratio_text, labels=5),
            None,
        ),
    ]
    return join(
        tag(
            "p",
            f"{counted(card['samples'], 'image')}, {in_bytes(card['image_bytes'])}. Stored unchanged, except those "
            f"that were re-encoded: {reencoded or 'none'}.",
            class_="lead",
        ),
        tag("div", figures, class_="cards wide"),
        tag("h3", "Most common sizes"),
        table(["size", "images", "share"], common, numeric=frozenset({1, 2})),
    )


class CaptionExamples:
    """Example images with their captions.

    Attributes:
        ids: ids of all shown samples.
    """

    def __init__(self, index: SampleIndex) -> None:
        self._index = index
        self._counts = pc.list_value_length(index.caption_lists).to_numpy(zero_copy_only=False)
        captioned = np.flatnonzero(self._counts > 0)
        self.ids: list[int] = by_hash(index, captioned)[:_EXAMPLES].tolist()

    def section(self, card: Mapping[str, Any], gallery: Gallery) -> Markup | None:
        """Histograms of caption lengths and counts, and examples; None without captions."""
        if not self.ids:
            return None
        lengths = pc.utf8_length(self._index.caption_lists.flatten()).to_numpy(zero_copy_only=False)
        cleaning = ", ".join(f"{count:,} {reason}" for reason, count in card["caption_cleaning"].items() if count)
        without = int((self._counts == 0).sum())
        return join(
            tag(
                "p",
                f"{counted(card['captions'], 'caption')}; {counted(without, 'image')} without one. "
                f"Cleaned or dropped: {cleaning or 'none'}.",
                class_="lead",
            ),
            tag(
                "div",
                _figure(
                    "Characters of a caption", histogram("Caption lengths", histogram_bins(lengths)), spread(lengths)
                ),
                _figure(
                    "Captions of an image",
                    histogram("Captions an image", histogram_bins(self._counts)),
                    spread(self._counts),
                ),
                class_="cards wide",
            ),
            tag("h3", "Images with their captions"),
            tag("div", [self._example(id, gallery) for id in self.ids], class_="examples"),
        )

    def _example(self, id: int, gallery: Gallery) -> Markup:
        captions = self._index.captions(id)
        more = len(captions) - _MAX_CAPTIONS
        return tag(
            "div",
            tag("div", gallery.thumb(id)),
            tag(
                "div",
                tag("span", self._index.key(id), class_="quiet"),
                tag("ul", [tag("li", _truncate(caption)) for caption in captions[:_MAX_CAPTIONS]]),
                tag("span", f"and {more:,} more", class_="quiet") if more > 0 else None,
            ),
            class_="card",
        )


def in_bytes(count: float) -> str:
    """A size in bytes in human-readable form, with decimal units (1 kB = 1000 B)."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} B"


def _ratio_bins(index: SampleIndex) -> list[Bin]:
    """Histogram of log2(width / height); square images are at the centre of a bin."""
    ratio = np.log2(index.widths.astype(np.float64) / index.heights)
    step = 2 * _MAX_LOG_RATIO / _RATIO_STEPS
    bins = np.clip(np.round((ratio + _MAX_LOG_RATIO) / step), 0, _RATIO_STEPS).astype(np.int64)
    counts = np.bincount(bins, minlength=_RATIO_STEPS + 1)
    values = [step * number - _MAX_LOG_RATIO for number in range(_RATIO_STEPS + 1)]
    return [Bin(value, value, int(count)) for value, count in zip(values, counts, strict=True)]


def _ratio_text(power: float) -> str:
    """The aspect ratio 2**power as text: "square", "4:3" as "1.33:1", or "1:1.33"."""
    ratio = 2.0 ** abs(power)
    text = f"{ratio:.2f}".rstrip("0").rstrip(".")
    if math.isclose(ratio, 1.0):
        return "square"
    return f"{text}:1" if power > 0 else f"1:{text}"


def _figure(
    title: str, chart: Markup, spread: Mapping[str, int] | None, format_value: Any = lambda value: f"{value:,}"
) -> Markup:
    values = list((spread or {}).values())
    if values and min(values) == max(values):
        # A single bar is replaced by a sentence.
        return tag(
            "div",
            tag("h3", title),
            tag("p", format_value(values[0]), class_="figure-value"),
            tag("p", "all the same", class_="label"),
            class_="card",
        )
    text = " · ".join(f"{name} {format_value(value)}" for name, value in (spread or {}).items())
    return tag(
        "div", tag("h3", title), tag("p", text, class_="label") if text else None, tag("figure", chart), class_="card"
    )


def _truncate(caption: str) -> str:
    return caption if len(caption) <= _MAX_CAPTION_CHARS else caption[: _MAX_CAPTION_CHARS - 1] + "…"
