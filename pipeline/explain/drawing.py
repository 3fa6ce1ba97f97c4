"""Drawing of explanations: a map over an image, and panels side by side above a caption, as a PNG.

A map is drawn over the image in grey: value 0 is transparent, and higher values are more opaque, from yellow over
orange to dark red. Bright and dark images thus stay legible, and the maps too for readers who distinguish colours by
lightness only.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from pipeline.html.figure_style import figure_style
from pipeline.html.theme import LIGHT

Picture: TypeAlias = NDArray[np.uint8]
"""RGB, [H, W, 3]."""

HEAT = LinearSegmentedColormap.from_list("heat", ["#fff3a8", "#fdc24d", "#f4772a", "#c9281d", "#6f0a22"])
_MAX_OPACITY = 0.8
_PAPER_GREY = 0.25  # fraction of white in the grey image below a map
_PANEL_PX = 320
PANELS_PER_ROW = 6
PAPER, _MUTED, _FRAME = LIGHT["paper"], LIGHT["muted"], "#c9281d"
_DPI = 100


@dataclass(frozen=True)
class Panel:
    """A picture and its title."""

    title: str
    picture: Picture


def to_picture(image: Tensor) -> Picture:
    """A uint8 image [C, H, W] of 1 or 3 channels as RGB."""
    pixels: Picture = image.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
    return pixels


def enlarge(small: Picture, side: int = _PANEL_PX) -> Picture:
    """A picture with its longer side brought to at least `side` pixels, smoothly."""
    height, width = small.shape[:2]
    factor = max(1.0, side / max(height, width))
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


def overlay(below: Picture, heat: NDArray[np.floating[Any]]) -> Picture:
    """A map over a picture, at the picture's size.

    Args:
        heat: [h, w] of any size, in [0, 1]; resized to the picture by bicubic interpolation.
    """
    height, width = below.shape[:2]
    field = Image.fromarray(np.asarray(heat, dtype=np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    value = np.clip(np.asarray(field), 0.0, 1.0)
    grey = below @ np.array([0.299, 0.587, 0.114]) / 255
    base = ((1 - _PAPER_GREY) * grey + _PAPER_GREY)[..., None]
    cover = (_MAX_OPACITY * value**0.7)[..., None]
    mixed = (1 - cover) * base + cover * HEAT(value)[..., :3]
    pixels: Picture = (255 * mixed + 0.5).astype(np.uint8)
    return pixels


def signed_picture(values: Tensor) -> Picture:
    """Values of both signs [C, H, W], C 1 or 3, as a picture in which 0 is grey; scaled by the largest magnitude."""
    scaled = values / values.abs().max().clamp(min=1e-12)
    return to_picture((127.5 * (scaled + 1)).round().to(torch.uint8))


def draw_frame(shown: Picture, top: int, left: int, bottom: int, right: int) -> Picture:
    """A picture with a frame around a part of it."""
    drawn = Image.fromarray(shown)
    width = max(1, max(shown.shape[:2]) // 120)
    ImageDraw.Draw(drawn).rectangle((left, top, right - 1, bottom - 1), outline=_FRAME, width=width)
    return np.asarray(drawn)


BLANK = Panel("", np.asarray(Image.new("RGB", (1, 1), PAPER)))
"""An empty panel of a sheet, in the background colour."""


def png(pixels: Picture) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sheet(panels: Sequence[Panel], *, heading: str, caption: str) -> bytes:
    """Panels in rows of at most six, below a heading and above a caption: the bytes of a PNG file."""
    columns = min(len(panels), PANELS_PER_ROW)
    rows = -(-len(panels) // columns)
    pad, title, top, cell = 0.16, 0.36, 0.42, _PANEL_PX / _DPI  # inches
    width = max(pad + columns * (cell + pad), 4.6)
    note = textwrap.wrap(caption, int(width * 12.4))
    height = top + rows * (cell + title) + 0.18 * len(note) + 2 * pad
    with mpl.rc_context(figure_style()):
        figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=PAPER)
        left = (width - columns * (cell + pad) + pad) / 2
        figure.text(left / width, 1 - 0.2 / height, heading, size=12.5, weight="bold", va="center")
        for number, panel in enumerate(panels):
            row, column = divmod(number, columns)
            x, y = left + column * (cell + pad), height - top - row * (cell + title) - title - cell
            figure.text(x / width, (y + cell + 0.07) / height, _truncate(panel.title), size=9.5, va="bottom")
            axes = figure.add_axes((x / width, y / height, cell / width, cell / height))
            axes.imshow(enlarge(panel.picture), interpolation="nearest")
            axes.set_axis_off()
        figure.text(left / width, pad / height, "\n".join(note), size=8.5, color=_MUTED, va="bottom", linespacing=1.35)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor=PAPER)
    return buffer.getvalue()


def _truncate(title: str, letters: int = 44) -> str:
    return title if len(title) <= letters else title[: letters - 1] + "…"
