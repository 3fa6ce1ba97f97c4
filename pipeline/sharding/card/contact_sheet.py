"""The contact sheet: one picture with samples of every label.

Each row shows a label, with samples of different content groups and, if possible, of all families. The colour of the
bar below a sample shows its split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from pipeline.counted import counted
from pipeline.pixels.decode import decode
from pipeline.sharding.card.sheet_style import COLOURS, FAINT, INK, MARGIN, PANEL, PAPER, draw_heading, font, truncate
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.index import SPLITS, SampleIndex

# Pixels: side of a cell, gaps between cells and rows, width of a row's name, height of the header.
_CELL, _GAP, _ROW_GAP, _NAME_WIDTH, _HEADER = 60, 8, 20, 176, 112
_CELLS_PER_ROW = 12
_MAX_LABELS = 80
_MAX_CANDIDATES = 400  # of a split
_CELLS_OF_SPLIT = {"train": 7, "val": 2, "test": 3}


def contact_sheet(index: SampleIndex, read_image: Callable[[int], bytes], title: str) -> Image.Image:
    """Draws the sheet.

    Args:
        read_image: returns the encoded image of a sample, by its id.
    """
    rows = [(name, np.flatnonzero(index.labels == number)) for number, name in enumerate(index.label_names)]
    rows = rows[:_MAX_LABELS]
    without = np.flatnonzero(index.labels < 0)
    if without.size:
        rows.append(("no label", without))
    columns = 2 if len(rows) > 12 else 1
    height = -(-len(rows) // columns)
    row_width = _NAME_WIDTH + _CELLS_PER_ROW * (_CELL + _GAP)
    width = 2 * MARGIN + columns * row_width + (columns - 1) * MARGIN
    sheet = Image.new("RGB", (width, _HEADER + height * (_CELL + _ROW_GAP) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, index, title, width, shown=min(len(index.label_names), _MAX_LABELS))
    for number, (name, ids) in enumerate(rows):
        x = MARGIN + (number // height) * (row_width + MARGIN)
        y = _HEADER + (number % height) * (_CELL + _ROW_GAP)
        _draw_name(draw, name, len(ids), x, y)
        for cell, id in enumerate(choose_ids(index, ids, _CELLS_OF_SPLIT)):
            picture = Image.fromarray(decode(read_image(id)))
            _draw_sample(sheet, draw, picture, SPLITS[index.splits[id]], x + _NAME_WIDTH + cell * (_CELL + _GAP), y)
    return sheet


def _draw_header(draw: ImageDraw.ImageDraw, index: SampleIndex, title: str, width: int, shown: int) -> None:
    labels = counted(len(index.label_names), "label") + ("" if shown == len(index.label_names) else f" ({shown} shown)")
    families = f", by {', '.join(index.family_names)}" if len(index.family_names) > 1 else ""
    line = f"{counted(len(index), 'image')}, {labels}{families}"
    draw_heading(draw, title, line, title_width=width - 2 * MARGIN, line_width=width // 2)
    x = float(width - MARGIN)
    for split in reversed(SPLITS):
        text = f"{split} {index.rows(split).size:,}"
        x -= draw.textlength(text, font(15))
        draw.text((x, 64), text, INK, font(15))
        draw.rounded_rectangle((x - 30, 71, x - 8, 75), 2, COLOURS[split])
        x -= 54


def _draw_name(draw: ImageDraw.ImageDraw, name: str, count: int, x: int, y: int) -> None:
    name = truncate(draw, name, _NAME_WIDTH - 16, font(15, bold=True))
    draw.text((x, y + 11), name, INK, font(15, bold=True))
    draw.text((x, y + 33), counted(count, "image"), FAINT, font(13))


def _draw_sample(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Image.Image, split: str, x: int, y: int
) -> None:
    draw.rounded_rectangle((x, y, x + _CELL - 1, y + _CELL - 1), 7, PANEL)
    inner = _CELL - 8
    sheet.paste(ImageOps.fit(picture, (inner, inner), Image.Resampling.LANCZOS), (x + 4, y + 4))
    draw.rounded_rectangle((x + 4, y + _CELL + 3, x + _CELL - 5, y + _CELL + 5), 1, COLOURS[split])


def choose_ids(index: SampleIndex, ids: NDArray[np.int64], quota: Mapping[str, int]) -> list[int]:
    """Selects ids, train first, preferring content groups and families with the fewest selected samples.

    Args:
        quota: split -> number of ids; what val and test lack is added to train.
    """
    candidates_of_split = {
        split: ids[index.splits[ids] == code][:_MAX_CANDIDATES].tolist() for code, split in enumerate(SPLITS)
    }
    quota = dict(quota)
    quota["train"] += sum(max(0, quota[split] - len(candidates_of_split[split])) for split in ("val", "test"))
    groups: Counter[int] = Counter()
    families: Counter[int] = Counter()
    chosen: list[int] = []
    for split in SPLITS:
        candidates = candidates_of_split[split]
        for _ in range(min(quota[split], len(candidates))):
            best = min(
                candidates, key=lambda id: (groups[int(index.groups[id])], families[int(index.family_codes[id])], id)
            )
            candidates.remove(best)
            groups[int(index.groups[best])] += 1
            families[int(index.family_codes[best])] += 1
            chosen.append(best)
    return chosen


def encoded_image(index: SampleIndex, folder: Path, id: int) -> bytes:
    """The encoded image of a sample, read from shards below `folder` or from tars that are indexed in place."""
    name = index.shard_names[int(index.shards[id])]
    url = name if addresses.is_remote(name) else str(folder / name)
    return addresses.read(url, int(index.offsets[id]), int(index.lengths[id]))
