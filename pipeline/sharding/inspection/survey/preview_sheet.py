"""The preview sheet: images with the name in the source (else the key), label and captions below each."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pipeline.sharding.card.sheet_style import (
    COLOURS,
    FAINT,
    INK,
    MARGIN,
    PANEL,
    PAPER,
    font,
    paste_fitted,
    truncate,
    truncate_start,
)
from pipeline.sharding.inspection.survey.preview_samples import PreviewSample
from pipeline.sharding.writing.images import UnreadableError, examine

# Pixels. _PADDING is around an image in its cell, _GAP between cells; _TEXT_HEIGHT is below a cell.
_CELL, _PADDING, _GAP, _HEADER = 200, 6, 22, 96
_TEXT_HEIGHT = 104
_COLUMNS = 6
_CAPTION_LINES = 3
_ERROR_COLOUR = "#b3361c"  # of the reason why an image cannot be shown
_NO_SPLIT_COLOUR = "#85867e"


def preview_sheet(samples: Sequence[PreviewSample], title: str, subtitle: str) -> Image.Image:
    """Draws the sheet.

    Args:
        subtitle: one line below the title.
    """
    columns = max(1, min(_COLUMNS, len(samples)))
    rows = -(-len(samples) // columns)
    # At least three columns wide, so that the title fits.
    width = 2 * MARGIN + max(columns, 3) * (_CELL + _GAP) - _GAP
    height = _HEADER + rows * (_CELL + _TEXT_HEIGHT + _GAP) + MARGIN - _GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 24), _truncate(draw, title, font(24, bold=True), width - 2 * MARGIN), INK, font(24, bold=True))
    draw.text((MARGIN, 58), _truncate(draw, subtitle, font(14), width - 2 * MARGIN), FAINT, font(14))
    for number, sample in enumerate(samples):
        x = MARGIN + number % columns * (_CELL + _GAP)
        y = _HEADER + number // columns * (_CELL + _TEXT_HEIGHT + _GAP)
        _draw_picture(sheet, draw, sample, x, y)
        _draw_text(draw, sample, x, y + _CELL + 8)
    return sheet


def _draw_picture(sheet: Image.Image, draw: ImageDraw.ImageDraw, sample: PreviewSample, x: int, y: int) -> None:
    draw.rounded_rectangle((x, y, x + _CELL - 1, y + _CELL - 1), 10, PANEL)
    problem = sample.problem
    if not problem:
        try:
            paste_fitted(sheet, examine(sample.data).image.convert("RGB"), x, y, cell=_CELL, padding=_PADDING)
            return
        except UnreadableError as error:
            problem = str(error)
    draw.line((x + 84, y + 50, x + 116, y + 82), _ERROR_COLOUR, 4)
    draw.line((x + 116, y + 50, x + 84, y + 82), _ERROR_COLOUR, 4)
    for number, line in enumerate(_wrap(draw, problem, font(12), _CELL - 4 * _PADDING, 4)):
        draw.text((x + _CELL / 2, y + 106 + 17 * number), line, _ERROR_COLOUR, font(12), anchor="mt")


def _draw_text(draw: ImageDraw.ImageDraw, sample: PreviewSample, x: int, y: int) -> None:
    draw.rounded_rectangle((x, y + 2, x + 4, y + 32), 2, COLOURS.get(sample.split, _NO_SPLIT_COLOUR))
    name = truncate_start(draw, _printable(sample.name or sample.key), _CELL - 12, font(12, bold=True))
    draw.text((x + 12, y), name, INK, font(12, bold=True))
    size = f"{sample.width}x{sample.height} {sample.kind}" if sample.width else ""
    description = " · ".join(item for item in (sample.label, sample.split, size) if item)
    draw.text((x + 12, y + 17), _truncate(draw, description, font(11), _CELL - 12), FAINT, font(11))
    words = sample.captions[0] if sample.captions else ""
    more = f" (+{len(sample.captions) - 1})" if len(sample.captions) > 1 else ""
    for number, line in enumerate(_wrap(draw, words + more, font(12), _CELL, _CAPTION_LINES)):
        draw.text((x, y + 39 + 17 * number), line, INK, font(12))


def _wrap(draw: ImageDraw.ImageDraw, text: str, face: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """The text in at most `lines` lines; a word that is too long is cut."""
    wrapped: list[str] = []
    # Text beyond the visible lines is not measured.
    words = _printable(text[:2000]).split()
    while words and len(wrapped) < lines:
        line = words.pop(0)
        while words and draw.textlength(f"{line} {words[0]}", face) <= width:
            line += f" {words.pop(0)}"
        last = len(wrapped) == lines - 1
        wrapped.append(_truncate(draw, f"{line} {' '.join(words[:6])}" if last and words else line, face, width))
    return wrapped


def _truncate(draw: ImageDraw.ImageDraw, text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    return truncate(draw, _printable(text[:500]), width, face)


def _printable(text: str) -> str:
    """The text with spaces for characters that cannot be drawn, e.g. lone surrogates and control characters."""
    return "".join(char if char.isprintable() else " " for char in text)
