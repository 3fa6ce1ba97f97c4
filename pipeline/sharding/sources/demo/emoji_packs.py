"""The five emoji packs at pinned versions: package, artist, and a reader for the drawings of each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.errors import WorkError
from pipeline.sharding.sources.base import Credit
from pipeline.sharding.sources.demo.npm_packs import Pack, read_members

# size -> the drawing as a square PNG with this side in pixels, on white.
Drawing = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class EmojiStyle:
    """The emoji style of one pack.

    Attributes:
        name: name of the style, e.g. "fluent-3d".
        family: the artist; styles of one family show the same drawing, so they are held out together.
        drawings: function that reads the pack's .tgz: normalised hexcode -> drawing.
    """

    name: str
    family: str
    pack: Pack
    credit: Credit
    drawings: Callable[[Path], dict[str, Drawing]]


def normalise_hexcode(hexcode: str) -> str:
    """An emoji's code points in lower-case hex, without the variation selector FE0F, which some packs omit."""
    return "-".join(point for point in hexcode.lower().split("-") if point != "fe0f")


def openmoji_table(archive: Path) -> list[dict[str, Any]]:
    """OpenMoji's table of all emoji: hexcode, name, tags, group and subgroup."""
    table: list[dict[str, Any]] = json.loads(_member(archive, "data/openmoji.json"))
    return table


def _openmoji_drawings(archive: Path) -> dict[str, Drawing]:
    folder = "color/svg/"
    files = read_members(archive, lambda name: name.startswith(folder) and name.endswith(".svg"))
    return {normalise_hexcode(name[len(folder) : -4]): _svg_drawing(data.decode()) for name, data in files.items()}


def _iconify_drawings(archive: Path) -> dict[str, Drawing]:
    files = read_members(archive, lambda name: name in ("icons.json", "chars.json"))
    icons: dict[str, Any] = json.loads(files["icons.json"])
    names: dict[str, str] = json.loads(files["chars.json"])
    drawings = {}
    for hexcode, name in names.items():
        svg = _iconify_svg(icons, name)
        if svg is not None:
            drawings[normalise_hexcode(hexcode)] = _svg_drawing(svg)
    return drawings


def _iconify_svg(icons: Mapping[str, Any], name: str) -> str | None:
    """An icon of an Iconify set as an SVG; an alias is its parent icon, possibly mirrored."""
    mirrored = False
    while name not in icons["icons"]:
        alias = icons.get("aliases", {}).get(name)
        if alias is None:
            return None
        mirrored ^= bool(alias.get("hFlip", False))
        name = alias["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    body = icon["body"]
    if mirrored:
        body = f'<g transform="translate({width} 0) scale(-1 1)">{body}</g>'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{body}</svg>'
    )


def _fluent_3d_drawings(archive: Path) -> dict[str, Drawing]:
    folder = "assets/"
    files = read_members(archive, lambda name: name.startswith(folder) and name.endswith(".webp"))
    return {normalise_hexcode(name[len(folder) : -5]): _bitmap_drawing(data) for name, data in files.items()}


def _svg_drawing(svg: str) -> Drawing:
    def draw(size: int) -> bytes:
        import resvg_py

        wide = _is_wide(svg)
        # Without system fonts: a drawing must not depend on the machine. No pinned drawing has text.
        rendered = bytes(
            resvg_py.svg_to_bytes(
                svg_string=svg,
                skip_system_fonts=True,
                background="#ffffff",
                width=size if wide else None,
                height=None if wide else size,
            )
        )
        with Image.open(io.BytesIO(rendered)) as image:
            return _squared_png(image.convert("RGB"), size)

    return draw


def _is_wide(svg: str) -> bool:
    _, _, width, height = (float(number) for number in svg.partition('viewBox="')[2].partition('"')[0].split())
    return width >= height


def _bitmap_drawing(data: bytes) -> Drawing:
    def draw(size: int) -> bytes:
        with Image.open(io.BytesIO(data)) as image:
            # Composited on white before scaling: otherwise half-transparent edges would mix with black.
            pixels = image.convert("RGBA")
            flat = Image.new("RGB", pixels.size, "white")
            flat.paste(pixels, mask=pixels.getchannel("A"))
        flat.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=None)
        return _squared_png(flat, size)

    return draw


def _squared_png(image: Image.Image, size: int) -> bytes:
    if image.size != (size, size):
        square = Image.new("RGB", (size, size), "white")
        square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        image = square
    buffer = io.BytesIO()
    # Compared with level 6, level 1 is 3% larger and takes a third less time (600 drawings).
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _member(archive: Path, name: str) -> bytes:
    files = read_members(archive, lambda candidate: candidate == name)
    if name not in files:
        raise WorkError(f"{archive}: has no {name}; is it the pack that its name says?")
    return files[name]


# To use a newer version: change it, run `npm pack NAME@VERSION --json`, copy `integrity` and `size`,
# and check the contact sheet. The digests are part of the artifact's key, so a new artifact is built.
STYLES = (
    EmojiStyle(
        "openmoji",
        "openmoji",
        Pack(
            "openmoji",
            "17.0.0",
            "sha512-EBnYrNGdcdw+OSXmENeNE1yBNRu6tOraTmoOyUbJkTmvT/+XETp8RZLSJFzD3lrPc5N9CzsyPnRTk0Vp4UaI9w==",
            4339458,
        ),
        Credit("OpenMoji 17.0.0", "the OpenMoji project, HfG Schwäbisch Gmünd", "CC-BY-SA-4.0", "https://openmoji.org"),
        _openmoji_drawings,
    ),
    EmojiStyle(
        "noto",
        "noto",
        Pack(
            "@iconify-json/noto",
            "1.2.9",
            "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
            3102958,
        ),
        Credit("Noto Emoji", "Google Inc.", "Apache-2.0", "https://github.com/googlefonts/noto-emoji"),
        _iconify_drawings,
    ),
    EmojiStyle(
        "twemoji",
        "twemoji",
        Pack(
            "@iconify-json/twemoji",
            "1.2.5",
            "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
            1555888,
        ),
        Credit("Twemoji", "Twitter, Inc. and contributors", "CC-BY-4.0", "https://github.com/jdecked/twemoji"),
        _iconify_drawings,
    ),
    EmojiStyle(
        "fluent-flat",
        "fluent",
        Pack(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
            1172438,
        ),
        Credit("Fluent Emoji, flat", "Microsoft Corporation", "MIT", "https://github.com/microsoft/fluentui-emoji"),
        _iconify_drawings,
    ),
    EmojiStyle(
        "fluent-3d",
        "fluent",
        Pack(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
            15792027,
        ),
        Credit("Fluent Emoji, 3D", "Microsoft Corporation", "MIT", "https://github.com/microsoft/fluentui-emoji"),
        _fluent_3d_drawings,
    ),
)
# OpenMoji's pack also contains the names, tags and groups of all emoji.
TABLE_PACK = STYLES[0].pack
FAMILIES = tuple(dict.fromkeys(style.family for style in STYLES))
