"""What no decoder may be given, and what an image may cost."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from pipeline.pixels.decode import ImageError, decode, decoding_reason, open_image
from pipeline.sharding.writing.images import ImagesConfig, UnreadableError, prepare_image

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("read", [decode, prepare_image])
def test_postscript_is_never_given_to_ghostscript(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    with pytest.raises((ImageError, UnreadableError), match="not an image of a format that is read"):
        read(POSTSCRIPT)


@pytest.mark.parametrize("kind", ["TGA", "PCX", "SGI", "ICO", "DDS", "ICNS", "IM", "SPIDER", "MSP", "EPS"])
def test_formats_outside_the_list_are_not_opened(kind: str) -> None:
    buffer = io.BytesIO()
    image = Image.new({"MSP": "1", "SPIDER": "F"}.get(kind, "RGB"), (32, 32))
    image.save(buffer, kind)
    with pytest.raises(ImageError, match="not an image of a format that is read"):
        open_image(buffer.getvalue())


@pytest.mark.parametrize("error", [AssertionError, RuntimeError, NotImplementedError, ZeroDivisionError, MemoryError,
                                   struct.error, RecursionError, subprocess.CalledProcessError])  # fmt: skip
def test_whatever_a_decoder_raises_is_a_reason(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Any) -> None:
        raise error(1, "gs") if error is subprocess.CalledProcessError else error("first\nsecond")

    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(buffer, "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(ImageError) as caught:
        decode(buffer.getvalue())
    assert "\n" not in str(caught.value)
    with pytest.raises(UnreadableError) as refused:
        prepare_image(buffer.getvalue())
    assert "\n" not in str(refused.value)


def test_no_reason_quotes_bytes_of_the_file() -> None:
    for read in (decode, prepare_image):
        with pytest.raises((ImageError, UnreadableError)) as caught:
            read(b"root:$6$secret:19000:0:99999:7:::\n")
        assert "root" not in str(caught.value)
        assert "(34 bytes)" in str(caught.value)


def png_header(width: int, height: int, colour: int) -> bytes:
    """A PNG that promises so many pixels and holds next to none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_memory_is_bounded_by_bytes_and_not_by_pixels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableError, match=r"8200x8200 in mode RGBA: 256 MiB decoded, more than 256 MiB"):
        prepare_image(png_header(8200, 8200, 6))
    with pytest.raises(UnreadableError, match=r"1500x1500 in mode RGB: 6 MiB .*max_decoded_mib"):
        prepare_image(png_header(1500, 1500, 2), ImagesConfig(max_decoded_mib=4))


@pytest.mark.heavy
def test_the_largest_image_that_is_allowed_takes_at_most_four_times_its_decoded_size(tmp_path: Path) -> None:
    """RGBA of 256 MiB: transparent, so it is decoded, laid on white and encoded again."""
    side = 8191
    file = tmp_path / "large.png"
    Image.fromarray(np.zeros((side, side, 4), np.uint8)).save(file, compress_level=1)
    code = (
        "import resource, sys; from pathlib import Path; from pipeline.sharding.writing.images import prepare_image\n"
        "data = Path(sys.argv[1]).read_bytes(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "prepare_image(data); print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)"
    )
    command = [sys.executable, "-c", code, str(file)]
    took = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
    assert int(took.stdout) < 4 * 256, took.stdout


def test_an_error_of_the_decoder_that_is_only_a_number_gets_its_kind() -> None:
    # Pillow's readers look up header fields in tables: the text of a KeyError is only the value that was not found.
    assert decoding_reason(KeyError(32)) == "the decoder failed: key error 32"
    assert decoding_reason(ValueError("-2")) == "the decoder failed: value error -2"
    assert decoding_reason(MemoryError()) == "the decoder failed: memory error"
    assert decoding_reason(OSError("image file is truncated")) == "image file is truncated"
