"""The sheet of leaks: evaluation image and training image side by side, to be judged by a person.

Each evaluation image is shown once, with its worst pair. At least half of the pairs shown are near pairs, if there are
that many: equal images need no review.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

from pipeline.counted import counted
from pipeline.leaks.findings import ImageRef, Pair
from pipeline.leaks.kinds import Kind
from pipeline.sharding.card.sheet_style import (
    COLOURS,
    FAINT,
    INK,
    MARGIN,
    PANEL,
    PAPER,
    draw_heading,
    font,
    paste_fitted,
    truncate,
    truncate_start,
)

# In pixels: side of an image, gap between the images of a pair, height of the heading; then the pairs per row.
_SIDE, _GAP, _HEADER, _COLUMNS = 132, 8, 112, 4
_TILE = 2 * _SIDE + _GAP
_PAIR_GAP = 28  # pixels between two pairs
_HEIGHT = 24 + _SIDE + 66
_HEADINGS = {
    Kind.EXACT: "same bytes",
    Kind.PIXELS: "same pixels",
    Kind.NEAR: "alike",
}

Read = Callable[[ImageRef], bytes | None]


def leak_sheet(pairs: Sequence[Pair], read: Read, *, title: str, subtitle: str, limit: int) -> Image.Image:
    """Draws the sheet.

    Args:
        pairs: the worst first.
        read: returns the encoded image, None if it cannot be read.
        subtitle: the counts, in one line.
        limit: maximum number of pairs shown.
    """
    shown = select_pairs(pairs, limit)
    width = 2 * MARGIN + _COLUMNS * _TILE + (_COLUMNS - 1) * _PAIR_GAP
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (width, _HEADER + rows * _HEIGHT + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw_heading(draw, title, subtitle, title_width=width - 2 * MARGIN, line_width=width - 2 * MARGIN)
    for number, pair in enumerate(shown):
        x = MARGIN + (number % _COLUMNS) * (_TILE + _PAIR_GAP)
        y = _HEADER + (number // _COLUMNS) * _HEIGHT
        _draw_pair(sheet, draw, pair, read, x, y)
    return sheet


def select_pairs(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """At most `limit` pairs to show, one per evaluation image; at least half are near pairs if there are that many."""
    first: dict[tuple[str, int], Pair] = {}
    for pair in pairs:
        first.setdefault((pair.evaluation.data_set, pair.evaluation.row), pair)
    near = [pair for pair in first.values() if pair.match.kind is Kind.NEAR]
    equal = [pair for pair in first.values() if pair.match.kind is not Kind.NEAR]
    max_equal = max(limit - len(near), limit // 2)
    equal = equal[:max_equal]
    return equal + near[: limit - len(equal)]


def _draw_pair(sheet: Image.Image, draw: ImageDraw.ImageDraw, pair: Pair, read: Read, x: int, y: int) -> None:
    heading = _HEADINGS[pair.match.kind]
    if pair.match.kind is Kind.NEAR:
        bits = pair.match.distance
        heading += f" {pair.match.difference:.2f}, {counted(bits, 'bit')}"
    draw.text((x, y), heading, INK, font(13, bold=True))
    if pair.same_label is False:
        text = "labels differ"
        draw.text((x + _TILE - draw.textlength(text, font(13)), y), text, COLOURS["test"], font(13))
    for image, left in ((pair.evaluation, x), (pair.train, x + _SIDE + _GAP)):
        _draw_image(sheet, draw, image, read(image), left, y + 24)


def _draw_image(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, image: ImageRef, data: bytes | None, x: int, y: int
) -> None:
    draw.rounded_rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), 7, PANEL)
    picture = None if data is None else _decode(data)
    if picture is None:
        draw.text((x + 16, y + _SIDE // 2 - 8), "cannot be read", FAINT, font(13))
    else:
        paste_fitted(sheet, picture, x, y, cell=_SIDE, padding=4)
    draw.rounded_rectangle((x + 4, y + _SIDE + 3, x + _SIDE - 5, y + _SIDE + 5), 1, COLOURS[image.split])
    split = image.split if image.data_set == "shards" else f"{image.data_set}: {image.split}"
    draw.text((x, y + _SIDE + 9), truncate_start(draw, image.name, _SIDE, font(11)), INK, font(11))
    for line, text in enumerate((image.label or "no label", split), 1):
        draw.text((x, y + _SIDE + 9 + 15 * line), truncate(draw, text, _SIDE, font(11)), FAINT, font(11))


def _decode(data: bytes) -> Image.Image | None:
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError, ValueError, LookupError, Image.DecompressionBombError):
        return None
