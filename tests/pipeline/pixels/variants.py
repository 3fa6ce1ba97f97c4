"""Encoded images of every format and variant that is read, each with the pixels that it must show.

What is expected is computed from the pixels that went in, not by the decoder under test. PNGs are written here chunk by
chunk, since Pillow writes few of their variants.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 41, 53
Pixels = NDArray[Any]


@dataclass(frozen=True)
class Variant:
    """An encoded image.

    Attributes:
        shown: uint8 [H, W, 3], what every reader of ours must show.
        tolerance: how many levels the codec may be off.
        stays: shards hold the very bytes.
    """

    name: str
    data: bytes
    shown: Pixels
    tolerance: int = 1
    stays: bool = False


def rgb() -> Pixels:
    """Smooth colours, with a saturated box in each corner."""
    across, down = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    picture = np.stack([across, down, 255 - (across + down) / 2], axis=2).round().astype(np.uint8)
    picture[4:14, 4:14], picture[4:14, -14:-4] = (250, 10, 10), (10, 240, 20)
    picture[-14:-4, 4:14], picture[-14:-4, -14:-4] = (20, 20, 250), (128, 128, 128)
    return picture


def grey() -> Pixels:
    return luma(rgb())


def luma(picture: Pixels) -> Pixels:
    """ITU-R BT.601 grey of uint8 [..., 3]."""
    return (picture.astype(np.float64) @ [0.299, 0.587, 0.114] + 0.5).astype(np.uint8)


def alpha() -> Pixels:
    """Opaque to transparent, from left to right."""
    return np.tile(np.linspace(255, 0, WIDTH).round().astype(np.uint8), (HEIGHT, 1))


def over_white(picture: Pixels, opacity: Pixels) -> Pixels:
    share = opacity[..., None] / 255.0
    return (picture * share + 255 * (1 - share)).round().astype(np.uint8)


def as_rgb(picture: Pixels) -> Pixels:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def encoded(picture: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: Pixels, bits: int, colour: int, *extra: bytes, interlaced: bool = False) -> bytes:
    """A PNG of [H, W] or [H, W, C] values below 2**bits, its further chunks before the pixels."""

    def packed(part: Pixels) -> bytes:
        if bits == 16:
            lines = [row.astype(">u2").tobytes() for row in part]
        elif bits == 8:
            lines = [row.astype(np.uint8).tobytes() for row in part]
        else:
            lines = [
                np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()
                for row in part
            ]
        return b"".join(b"\0" + line for line in lines)

    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    raw = b"".join(packed(rows[y::dy, x::dx]) for y, x, dy, dx in passes) if interlaced else packed(rows)
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], bits, colour, 0, 0, int(interlaced))
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b""))
    )


def palette() -> tuple[Pixels, Pixels]:
    """Numbers [H, W] and colours [16, 3]."""
    colours = np.random.default_rng(5).integers(0, 256, (16, 3)).astype(np.uint8)
    numbers = np.add.outer(np.arange(HEIGHT) // 5, np.arange(WIDTH) // 4) % 16
    return numbers.astype(np.uint8), colours


def _pngs() -> Iterator[Variant]:
    picture, flat, opacity = rgb(), grey(), alpha()
    numbers, colours = palette()
    plte = chunk(b"PLTE", colours.tobytes())
    yield Variant("png rgb", png(picture, 8, 2), picture, stays=True)
    yield Variant("png rgb interlaced", png(picture, 8, 2, interlaced=True), picture, stays=True)
    yield Variant("png grey", png(flat, 8, 0), as_rgb(flat), stays=True)
    yield Variant("png grey interlaced", png(flat, 8, 0, interlaced=True), as_rgb(flat), stays=True)
    for bits in (1, 2, 4):
        values = (flat >> (8 - bits)).astype(np.uint8)
        scale = 255 // ((1 << bits) - 1)
        yield Variant(f"png grey {bits} bits", png(values, bits, 0), as_rgb(values * scale), stays=bits > 1)
        key = int(values[20, 20])
        shown = np.where(values == key, 255, values * scale).astype(np.uint8)
        trns = chunk(b"tRNS", struct.pack(">H", key))
        yield Variant(f"png grey {bits} bits, colour key", png(values, bits, 0, trns), as_rgb(shown))
    for bits in (1, 2, 4, 8):
        few = numbers % min(1 << bits, 16)
        table = chunk(b"PLTE", colours[: 1 << bits].tobytes())
        yield Variant(f"png palette {bits} bits", png(few, bits, 3, table), colours[few])
    yield Variant("png palette interlaced", png(numbers, 4, 3, plte, interlaced=True), colours[numbers])
    trns = chunk(b"tRNS", bytes([255, 0, 128]))
    opaque = np.full(16, 255, np.uint8)
    opaque[:3] = (255, 0, 128)
    yield Variant("png palette, alpha", png(numbers, 8, 3, plte, trns), over_white(colours[numbers], opaque[numbers]))
    one = chunk(b"tRNS", bytes([255, 0]))
    single = np.where(np.arange(16) == 1, 0, 255).astype(np.uint8)
    yield Variant(
        "png palette, one colour out", png(numbers, 8, 3, plte, one), over_white(colours[numbers], single[numbers])
    )
    key = int(flat[20, 20])
    shown = np.where(flat == key, 255, flat).astype(np.uint8)
    yield Variant("png grey, colour key", png(flat, 8, 0, chunk(b"tRNS", struct.pack(">H", key))), as_rgb(shown))
    red = tuple(int(value) for value in picture[8, 8])
    shown = np.where((picture == red).all(axis=2)[..., None], 255, picture).astype(np.uint8)
    yield Variant("png rgb, colour key", png(picture, 8, 2, chunk(b"tRNS", struct.pack(">HHH", *red))), shown)
    yield Variant("png rgba", png(np.dstack([picture, opacity]), 8, 6), over_white(picture, opacity))
    yield Variant("png grey alpha", png(np.dstack([flat, opacity]), 8, 4), over_white(as_rgb(flat), opacity))
    deep = flat.astype(np.uint16) * 257
    yield Variant("png 16-bit grey", png(deep, 16, 0), as_rgb(flat))
    yield Variant("png 16-bit dark grey", png(deep // 20, 16, 0), as_rgb((flat / 20).round().astype(np.uint8)))
    shown = np.where(deep == key * 257, 255, flat).astype(np.uint8)
    yield Variant(
        "png 16-bit grey, colour key", png(deep, 16, 0, chunk(b"tRNS", struct.pack(">H", key * 257))), as_rgb(shown)
    )
    deep_rgb, deep_alpha = picture.astype(np.uint16) * 257, opacity.astype(np.uint16) * 257
    yield Variant("png 16-bit rgb", png(deep_rgb, 16, 2), picture)
    key_rgb = chunk(b"tRNS", struct.pack(">HHH", *(value * 257 for value in red)))
    shown = np.where((picture == red).all(axis=2)[..., None], 255, picture).astype(np.uint8)
    yield Variant("png 16-bit rgb, colour key", png(deep_rgb, 16, 2, key_rgb), shown)
    yield Variant("png 16-bit rgba", png(np.dstack([deep_rgb, deep_alpha]), 16, 6), over_white(picture, opacity))
    yield Variant(
        "png 16-bit grey alpha",
        png(np.dstack([flat.astype(np.uint16) * 257, deep_alpha]), 16, 4),
        over_white(as_rgb(flat), opacity),
    )
    for gamma in (45455, 100000):
        yield Variant(
            f"png rgb, gAMA {gamma}",
            png(picture, 8, 2, chunk(b"gAMA", struct.pack(">I", gamma))),
            picture,
            stays=True,
        )
    yield Variant("png rgb, sRGB", png(picture, 8, 2, chunk(b"sRGB", b"\0")), picture, stays=True)
    yield Variant("png rgb, eXIf turned", turned("PNG"), picture)
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    yield Variant("png animated", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), picture)


def turned(kind: str, orientation: int = 6, **options: Any) -> bytes:
    """The picture stored lying, with the EXIF tag that says so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(rgb()).transpose(Image.Transpose.ROTATE_90), kind, exif=exif, **options)


def _jpegs() -> Iterator[Variant]:
    picture, flat = rgb(), grey()
    smooth = np.asarray(Image.fromarray(picture).resize((WIDTH // 4, HEIGHT // 4)).resize((WIDTH, HEIGHT)))

    def jpeg(name: str, data: bytes, stays: bool = True, was: Pixels = smooth) -> Variant:
        reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        return Variant(name, data, reference if was is smooth else was, tolerance=3, stays=stays)

    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        yield jpeg(f"jpeg {subsampling}", encoded(smooth, "JPEG", subsampling=subsampling))
    yield jpeg("jpeg progressive", encoded(smooth, "JPEG", progressive=True))
    yield jpeg("jpeg restarts", encoded(smooth, "JPEG", restart_marker_blocks=2))
    yield jpeg("jpeg rgb inside", encoded(smooth, "JPEG", keep_rgb=True))
    yield jpeg("jpeg grey", encoded(flat, "JPEG"))
    yield jpeg("jpeg saturated", encoded(picture, "JPEG", quality=40))
    plain = encoded(smooth, "JPEG")
    yield jpeg("jpeg cmyk", encoded(Image.fromarray(smooth).convert("CMYK"), "JPEG"), stays=False)
    upright = np.asarray(Image.open(io.BytesIO(turned("JPEG", quality=98))).convert("RGB").rotate(-90, expand=True))
    yield jpeg("jpeg turned", turned("JPEG", quality=98), stays=False, was=upright)
    at = plain.index(b"\xff\xe0")
    end = at + 2 + int.from_bytes(plain[at + 2 : at + 4], "big")
    yield jpeg("jpeg, FF 00 after APP0", plain[:end] + b"\xff\x00" + plain[end:], stays=False)
    yield jpeg("jpeg, stray bytes after APP0", plain[:end] + b"stray" + plain[end:], stays=False)
    yield jpeg("jpeg, fill bytes before a marker", plain[:end] + b"\xff\xff" + plain[end:])
    at = plain.index(b"\xff\xda")
    yield jpeg("jpeg, stray bytes before the scan", plain[:at] + b"\x01\x02" + plain[at:], stays=False)
    yield jpeg("jpeg, bytes after its end", plain + b"more")
    frames = [Image.fromarray(smooth), Image.fromarray(255 - smooth)]
    yield jpeg("mpo", encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]))


def _others() -> Iterator[Variant]:
    picture, flat, opacity = rgb(), grey(), alpha()
    numbers, colours = palette()
    indexed = Image.fromarray(numbers, "P")
    indexed.putpalette(colours.tobytes())
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    transparent = Image.fromarray(np.dstack([picture, opacity]))
    white = over_white(picture, opacity)
    bits = flat > 127

    yield Variant("webp lossless", encoded(picture, "WEBP", lossless=True), picture, stays=True)
    lossy = encoded(picture, "WEBP", quality=90)
    shown = np.asarray(Image.open(io.BytesIO(lossy)).convert("RGB"))
    yield Variant("webp lossy", lossy, shown, stays=True)
    yield Variant("webp lossless alpha", encoded(transparent, "WEBP", lossless=True, exact=True), white)
    yield Variant("webp turned", turned("WEBP", lossless=True), picture)
    yield Variant(
        "webp animated", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True), picture
    )

    yield Variant("gif", encoded(indexed, "GIF"), colours[numbers])
    yield Variant("gif interlaced", encoded(indexed, "GIF", interlace=True), colours[numbers])
    yield Variant(
        "gif transparent", encoded(indexed, "GIF", transparency=3), over_white(colours[numbers], (numbers != 3) * 255)
    )
    yield Variant("gif grey", encoded(flat, "GIF"), as_rgb(flat))
    other = indexed.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    yield Variant("gif animated", encoded(indexed, "GIF", save_all=True, append_images=[other]), colours[numbers])

    yield Variant("bmp", encoded(picture, "BMP"), picture)
    yield Variant("bmp grey", encoded(flat, "BMP"), as_rgb(flat))
    yield Variant("bmp palette", encoded(indexed, "BMP"), colours[numbers])
    yield Variant("bmp 1 bit", encoded(Image.fromarray(bits), "BMP"), as_rgb(bits * np.uint8(255)))
    yield Variant("bmp of 32 bits", encoded(transparent, "BMP"), picture)  # without masks the fourth byte is no alpha

    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield Variant(f"tiff {compression}", encoded(picture, "TIFF", compression=compression), picture)
    yield Variant("tiff grey", encoded(flat, "TIFF"), as_rgb(flat))
    yield Variant("tiff palette", encoded(indexed, "TIFF"), colours[numbers])
    fax = encoded(Image.fromarray(bits), "TIFF", compression="group4")
    yield Variant("tiff 1 bit, group 4", fax, as_rgb(bits * np.uint8(255)))
    yield Variant("tiff rgba", encoded(transparent, "TIFF"), white)
    cmyk = Image.fromarray(picture).convert("CMYK")
    yield Variant("tiff cmyk", encoded(cmyk, "TIFF"), picture, tolerance=2)
    yield Variant("tiff turned", turned("TIFF"), picture)
    yield Variant("tiff of two pages", encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]), picture)
    deep = flat.astype(np.uint16)
    for used in (10, 12, 14, 16):
        top = (1 << used) - 1
        values = (deep.astype(np.float64) * top / 255).round().astype(np.uint16)
        values[0, 0] = top
        shown = as_rgb((values * 255.0 / top).round().astype(np.uint8))
        yield Variant(f"tiff 16-bit, {used} used", encoded(values, "TIFF"), shown)
        yield Variant(f"tiff 16-bit big endian, {used} used", encoded(values.astype(">u2"), "TIFF"), shown)
    dim = (deep * 8).astype(np.uint16)
    shown = as_rgb((dim * 255.0 / 4095).round().astype(np.uint8))
    yield Variant("tiff 16-bit, its white stated", encoded(dim, "TIFF", tiffinfo={281: 4095}), shown)
    yield Variant("tiff 16-bit, 0 is white", white_is_zero(deep * 257), as_rgb(255 - flat))
    yield Variant("tiff floats to 1", encoded((flat / 255).astype(np.float32), "TIFF"), as_rgb(flat))
    yield Variant("tiff floats to 255", encoded(flat.astype(np.float32), "TIFF"), as_rgb(flat))
    wide = flat.astype(np.float32) * 40 - 3000
    low, high = float(wide.min()), float(wide.max())
    shown = as_rgb(((wide - low) * 255 / (high - low)).round().astype(np.uint8))
    yield Variant("tiff floats of any range", encoded(wide, "TIFF"), shown)
    yield Variant("tiff 32-bit", encoded(flat.astype(np.int32) * 257, "TIFF"), as_rgb(flat))

    for name, picture_of in (("ppm", picture), ("pgm", flat)):
        yield Variant(name, encoded(picture_of, "PPM"), as_rgb(picture_of))
    yield Variant("pbm", encoded(Image.fromarray(bits), "PPM"), as_rgb(bits * np.uint8(255)))
    yield Variant("pgm 16 bits", encoded(deep * 257, "PPM"), as_rgb(flat))
    header = f"P5\n# by hand\n{WIDTH} {HEIGHT}\n1023\n".encode()
    ten = (deep.astype(np.float64) * 1023 / 255).round().astype(">u2")
    yield Variant("pgm of 10 bits", header + ten.tobytes(), as_rgb(flat))
    text = f"P3\n{WIDTH} {HEIGHT}\n255\n" + " ".join(str(value) for value in picture.ravel())
    yield Variant("ppm in text", text.encode(), picture)
    yield Variant("qoi", encoded(picture, "QOI"), picture)
    yield Variant("qoi rgba", encoded(transparent, "QOI"), white)
    for name, options in (("jp2", {}), ("j2k", {"no_jp2": True})):
        yield Variant(f"jpeg2000 {name}", encoded(picture, "JPEG2000", irreversible=False, **options), picture)
    yield Variant("jpeg2000 grey", encoded(flat, "JPEG2000"), as_rgb(flat))
    yield Variant("jpeg2000 16 bits", encoded(deep * 257, "JPEG2000"), as_rgb(flat))
    avif = encoded(picture, "AVIF", quality=100, subsampling="4:4:4")
    yield Variant("avif", avif, np.asarray(Image.open(io.BytesIO(avif)).convert("RGB")))
    clear = encoded(transparent, "AVIF", quality=100, subsampling="4:4:4")
    seen = np.asarray(Image.open(io.BytesIO(clear)).convert("RGBA"))
    yield Variant("avif alpha", clear, over_white(seen[..., :3], seen[..., 3]))


def white_is_zero(values: Pixels) -> bytes:
    """A 16-bit grey TIFF in which 0 is white, written by hand: Pillow writes none."""
    body = values.astype("<u2").tobytes()
    entries = [(256, 4, WIDTH), (257, 4, HEIGHT), (258, 3, 16), (259, 3, 1), (262, 3, 0), (273, 4, 8), (277, 3, 1),
               (278, 4, HEIGHT), (279, 4, len(body))]  # fmt: skip
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + struct.pack("<I", 0)


@cache
def variants() -> list[Variant]:
    return [variant for family in (_pngs, _jpegs, _others) for variant in family()]
