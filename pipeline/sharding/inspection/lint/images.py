"""Checks of images that do not decode, or that loaders decode differently than intended. One function per check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.pixels.formats import HEAD_BYTES, format_of
from pipeline.pixels.soundness import webp_fault
from pipeline.sharding.format.index import content_hash
from pipeline.sharding.inspection.lint.findings import Code, Severity, code
from pipeline.sharding.writing.images import ImagesConfig, UnreadableError, examine

_MAX_PIXELS = ImagesConfig().max_pixels
_SMALLEST_SIDE, _LONGEST_RATIO = 8, 16
_EXTENSIONS = {
    "JPEG": ("jpg", "jpeg", "jfif", "jpe", "mpo"), "PNG": ("png",), "WEBP": ("webp",), "GIF": ("gif",), "BMP": ("bmp",),
    "TIFF": ("tif", "tiff"), "AVIF": ("avif",), "JPEG2000": ("jp2", "j2k", "jpx", "jpf", "j2c"), "QOI": ("qoi",),
    "PPM": ("ppm", "pgm", "pbm", "pnm", "pfm"),
}  # fmt: skip
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_LAST_BYTES = 64


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The result of decoding an image of a sample, or the reason why it failed.

    Attributes:
        extension: extension of its member, in lower case.
        kind: "JPEG", "PNG", ...; "" if it is not an image.
        properties: what loaders may not handle as intended, in the words of the data card.
        fault: "cut": the data end early; otherwise as in `UnreadableError`: "empty", "long", "too_many_pixels",
            "foreign" or "damaged"; None: it decodes.
        reason: the decoder's message.
        content: its content hash.
    """

    extension: str
    kind: str = ""
    width: int = 0
    height: int = 0
    properties: tuple[str, ...] = ()
    rotated_by_exif: bool = False
    fault: str | None = None
    reason: str = ""
    content: str = ""


def decode_image(data: bytes, extension: str) -> DecodedImage:
    """Decodes an image; a failure is reported in `fault` and `reason`, not raised."""
    content = content_hash(data)
    try:
        examined = examine(data)
        fault = None if examined.fault is None else "cut" if _is_cut(data, len(data)) else "damaged"
        width, height = examined.image.size
        return DecodedImage(
            extension,
            examined.kind,
            width,
            height,
            examined.variations,
            examined.is_rotated,
            fault,
            examined.fault or "",
            content,
        )
    except UnreadableError as error:
        fault = "cut" if error.fault in ("damaged", "foreign") and _is_cut(data, _LAST_BYTES) else error.fault
        return DecodedImage(extension, fault=fault, reason=str(error), content=content)


def _is_cut(data: bytes, where: int) -> bool:
    """Whether an encoded image is shorter than its header states, or has no end mark in its last `where` bytes."""
    kind = format_of(data[:HEAD_BYTES])
    if kind == "WEBP":
        return webp_fault(data) is not None
    end = _ENDS.get(kind or "")
    return end is not None and end not in data[-where:]


Check = Callable[[DecodedImage], str | None]
CHECKS: list[tuple[Code, Check]] = []


def check(name: str, severity: Severity, doc: str) -> Callable[[Check], Check]:
    """Registers a check, which returns a message or None."""

    def register(function: Check) -> Check:
        CHECKS.append((code(name, severity, doc), function))
        return function

    return register


@check(
    "image-truncated",
    "error",
    "The image data end too early, although the tar is complete: decoders raise, or return a part.",
)
def truncated(decoded: DecodedImage) -> str | None:
    return f"its data end early ({decoded.reason})" if decoded.fault == "cut" else None


@check("image-broken", "error", "Empty, not an image, or damaged: decoders raise.")
def broken(decoded: DecodedImage) -> str | None:
    return decoded.reason if decoded.fault in ("empty", "foreign", "damaged", "long") else None


@check("image-bomb", "error", f"More than {_MAX_PIXELS:,} pixels: decoding takes gigabytes, Pillow refuses or warns.")
def too_many_pixels(decoded: DecodedImage) -> str | None:
    return decoded.reason if decoded.fault == "too_many_pixels" else None


@check("image-cmyk", "warning", "A CMYK JPEG: loaders convert it to RGB differently, some with inverted colours.")
def cmyk(decoded: DecodedImage) -> str | None:
    return "four colours (CMYK)" if "was CMYK" in decoded.properties else None


@check("image-rotated", "warning", "Rotated by its EXIF, which viewers apply and most loaders do not.")
def rotated(decoded: DecodedImage) -> str | None:
    return "rotated by its EXIF orientation" if decoded.rotated_by_exif else None


@check("image-animated", "warning", "Several frames, of which loaders read the first, or raise.")
def animated(decoded: DecodedImage) -> str | None:
    return "it has several frames" if "animated" in decoded.properties else None


@check("image-16-bit", "warning", "16 bits or floats per channel: loaders convert them to 8 bits differently.")
def deep(decoded: DecodedImage) -> str | None:
    return "more than 8 bits a channel" if "16 bit" in decoded.properties else None


@check("image-transparent", "warning", "Transparent: the background (black, white, garbage) depends on the loader.")
def transparent(decoded: DecodedImage) -> str | None:
    return "it has transparency" if "transparent" in decoded.properties else None


@check("image-form", "warning", "A palette, or a format (GIF, BMP, TIFF, ...) that fast loaders do not read.")
def form(decoded: DecodedImage) -> str | None:
    reported = ("was CMYK", "animated", "16 bit", "transparent")
    odd = [name.removeprefix("was ") for name in decoded.properties if name not in reported]
    return f"{', '.join(odd)}, which fast loaders do not read" if odd else None


@check("image-extension", "warning", "The bytes are of another format than the extension says.")
def extension(decoded: DecodedImage) -> str | None:
    known = _EXTENSIONS.get(decoded.kind)
    if known is None or decoded.extension in known:
        return None
    return f"it is {decoded.kind}, and its extension .{decoded.extension}"


@check(
    "image-size",
    "warning",
    f"A side under {_SMALLEST_SIDE} pixels, or one side more than {_LONGEST_RATIO} times the other: rarely a picture.",
)
def size(decoded: DecodedImage) -> str | None:
    if decoded.fault is not None:
        return None
    short, long = sorted((decoded.width, decoded.height))
    odd = short < _SMALLEST_SIDE or long > _LONGEST_RATIO * short
    return f"{decoded.width}x{decoded.height} pixels" if odd else None
