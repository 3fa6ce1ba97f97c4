"""Pixels: what is stored is what is seen, and resizing follows one rule."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from pipeline.loading.decode import Crop, decode
from pipeline.loading.resize import resize_to_square


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def chw(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_pictures_come_back_as_they_were(kind: str, options: dict[str, object]) -> None:
    image = gradient(32, 32)
    np.testing.assert_array_equal(decode(encoded(image, kind, **options), size=32).numpy(), chw(image))


def test_jpeg_is_read_as_others_read_it() -> None:
    data = encoded(gradient(48, 48), "JPEG", quality=95)
    np.testing.assert_array_equal(decode(data, size=48).numpy(), chw(Image.open(io.BytesIO(data))))


def test_channels_are_what_was_asked_for() -> None:
    colour, grey = gradient(20, 20), gradient(20, 20).convert("L")
    for kind in ("PNG", "JPEG", "WEBP"):
        shown = decode(encoded(colour, kind), size=20, channels=1).numpy().astype(int)
        theirs = chw(Image.open(io.BytesIO(encoded(colour, kind))).convert("L"))
        assert shown.shape == (1, 20, 20)
        assert np.abs(shown - theirs).max() <= 2
        red, green, blue = decode(encoded(grey, kind, **({"lossless": True} if kind == "WEBP" else {})), size=20)
        assert torch.equal(red, green)
        assert torch.equal(green, blue)


def test_unusual_files_are_read_too() -> None:
    deep = Image.fromarray((np.arange(400, dtype=np.uint16) * 160).reshape(20, 20))
    assert decode(encoded(deep, "PNG"), size=20, channels=1)[0, 19, 19] == (399 * 160) >> 8
    palette = gradient(20, 20).quantize(16)
    np.testing.assert_array_equal(decode(encoded(palette, "PNG"), size=20).numpy(), chw(palette.convert("RGB")))
    four_colours = gradient(20, 20).convert("CMYK")
    assert decode(encoded(four_colours, "JPEG"), size=20).shape == (3, 20, 20)


@given(st.integers(8, 90), st.integers(8, 90), st.integers(4, 64))
@settings(max_examples=60, deadline=None)
def test_resizing_is_torchvisions_resize_and_centre_crop(height: int, width: int, size: int) -> None:
    image = torch.from_numpy(chw(gradient(width, height)).copy())
    theirs = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size)])(image)
    assert torch.equal(resize_to_square(image, size), theirs)


def test_a_square_is_scaled_whole_as_pil_scales_it() -> None:
    image = gradient(72, 72)
    theirs = chw(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(decode(encoded(image, "PNG"), size=64).numpy().astype(int) - theirs).max() <= 1


UNIT = st.floats(0, 1, exclude_max=True)


@given(st.floats(0.01, 1), st.floats(0.25, 4), UNIT, UNIT, st.integers(1, 500), st.integers(1, 500))
def test_crop_lies_inside_the_image(
    area: float, ratio: float, top: float, left: float, height: int, width: int
) -> None:
    y, x, box_height, box_width = Crop(area, ratio, top, left).box(height, width)
    assert 0 <= y <= y + box_height <= height
    assert 0 <= x <= x + box_width <= width
    assert min(box_height, box_width) >= 1


def test_crop_shows_its_part() -> None:
    image = gradient(64, 64)
    crop = Crop(area=0.25, ratio=1.0, top=0.999, left=0.0)
    assert crop.box(64, 64) == (32, 0, 32, 32)
    shown = decode(encoded(image, "PNG"), size=32, crop=crop)
    np.testing.assert_array_equal(shown.numpy(), chw(image)[:, 32:, :32])


@pytest.mark.parametrize("crop", [Crop(1.0, 1.0, 0.0, 0.0), Crop(0.5, 1.5, 0.7, 0.3), Crop(0.3, 0.6, 0.0, 0.9)])
def test_cheap_decoding_of_large_photographs_shows_the_same(crop: Crop) -> None:
    """A JPEG decoded at a fraction of its size differs from a PNG of it by a few levels."""
    image = gradient(640, 481)
    from_jpeg = decode(encoded(image, "JPEG", quality=98), size=64, crop=crop).numpy().astype(int)
    from_png = decode(encoded(image, "PNG"), size=64, crop=crop).numpy().astype(int)
    assert np.abs(from_jpeg - from_png).mean() < 1.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("crop", [None, Crop(0.5, 1.0, 0.0, 0.0)])
def test_what_is_no_image_is_a_value_error(kind: str, crop: Crop | None) -> None:
    data = encoded(gradient(40, 40), kind)
    for broken in (data[: len(data) // 2], b"", b"no image at all"):
        with pytest.raises(ValueError):
            decode(broken, size=32, crop=crop)


@pytest.mark.parametrize("kind", ["RGB", "L", "RGBA", "P", "I;16"])
def test_a_png_with_a_changed_byte_is_refused_before_libpng_sees_it(kind: str) -> None:
    """libpng, as torchvision ships it, ends the process on most of them: this test would not come back."""
    image = Image.new("I;16", (40, 40), 999) if kind == "I;16" else gradient(40, 40).convert(kind)
    data = encoded(image, "PNG")
    assert decode(data, size=20).shape == (3, 20, 20)
    assert decode(data + b"more", size=20).shape == (3, 20, 20)
    for place in np.random.default_rng(0).integers(0, len(data), 60):
        changed = bytearray(data)
        changed[place] ^= 16
        with pytest.raises(ValueError, match=r"PNG|signature|Unsupported|image"):
            decode(bytes(changed), size=20)
    for length in (8, 20, len(data) // 2, len(data) - 12, len(data) - 1):
        with pytest.raises(ValueError, match="PNG"):
            decode(data[:length], size=20)
