"""What all sheets of pictures look like: colours, font, heading, and texts that are cut to a width."""

from __future__ import annotations

from PIL import ImageDraw, ImageFont

from pipeline.errors import shortened

MARGIN = 36
PAPER, PANEL, INK, FAINT = "#f4f3ee", "#ffffff", "#23241f", "#85867e"
COLOURS = {"train": "#2f6f8f", "val": "#d99a2b", "test": "#c0492f"}
_MOST_CHARS = 500


def draw_heading(draw: ImageDraw.ImageDraw, title: str, line: str, *, title_width: int, line_width: int) -> None:
    """A title and a line below it, in the 84 pixels at the top."""
    draw.text((MARGIN, 26), cut_to(draw, title, title_width, font(26, bold=True)), INK, font(26, bold=True))
    draw.text((MARGIN, 64), cut_to(draw, line, line_width, font(15)), FAINT, font(15))


def cut_to(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """A text as one line that is at most `width` pixels wide, its end cut off if need be."""
    text = shortened(text, _MOST_CHARS)
    while draw.textlength(text, font) > width and len(text) > 4:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font: it is there on every machine that has Tutelage, and the same on each."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf", size)
