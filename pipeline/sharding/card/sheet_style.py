"""The common style of all contact sheets: colours, font, heading, truncation of text."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.errors import shortened
from pipeline.printable import printable

MARGIN = 36
PAPER, PANEL, INK, FAINT = "#f4f3ee", "#ffffff", "#23241f", "#85867e"
COLOURS = {"train": "#2f6f8f", "val": "#d99a2b", "test": "#c0492f"}
_MAX_CHARS = 500  # of a text; a longer one is shortened before its width is measured


def draw_heading(draw: ImageDraw.ImageDraw, title: str, line: str, *, title_width: int, line_width: int) -> None:
    """Draws a title and a line below it, in the top 84 pixels."""
    draw.text((MARGIN, 26), truncate(draw, title, title_width, font(26, bold=True)), INK, font(26, bold=True))
    draw.text((MARGIN, 64), truncate(draw, line, line_width, font(15)), FAINT, font(15))


def paste_fitted(sheet: Image.Image, picture: Image.Image, x: int, y: int, *, cell: int, padding: int) -> None:
    """Pastes a picture into the middle of a square cell at (x, y), scaled to fit; small ones by whole factors."""
    side = cell - 2 * padding
    factor = side // max(picture.size)  # a whole factor keeps the pixels of icons sharp
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    else:
        picture = ImageOps.contain(picture, (side, side), Image.Resampling.LANCZOS)
    sheet.paste(picture, (x + (cell - picture.width) // 2, y + (cell - picture.height) // 2))


def truncate(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text as one line, truncated to `width` pixels."""
    text = shortened(text, _MAX_CHARS)
    while draw.textlength(text, font) > width and len(text) > 4:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def truncate_start(draw: ImageDraw.ImageDraw, name: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The end of a name, in at most `width` pixels: a long path is truncated at its start, before the file's name."""
    name = printable(name)[-_MAX_CHARS:]
    while draw.textlength(name, font) > width and len(name) > 4:
        name = "…" + name.removeprefix("…")[1:]
    return name


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from Matplotlib, so that the font is installed and the same on every machine."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf", size)
