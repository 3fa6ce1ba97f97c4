"""Pixels: what is stored is what is seen, and resizing follows one rule."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from pipeline.loading.decode import Crop, decode
from pipeline.loading.resize import resize, resize_to_square
from pipeline.pixels.jpeg import plain_frame, upper_rows


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def hwc(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_pictures_come_back_as_they_were(kind: str, options: dict[str, object]) -> None:
    image = gradient(32, 32)
    np.testing.assert_array_equal(decode(encoded(image, kind, **options), size=32), hwc(image))


def test_jpeg_is_read_as_others_read_it() -> None:
    data = encoded(gradient(48, 48), "JPEG", quality=95)
    np.testing.assert_array_equal(decode(data, size=48), hwc(Image.open(io.BytesIO(data))))


def test_channels_are_what_was_asked_for() -> None:
    colour, grey = gradient(20, 20), gradient(20, 20).convert("L")
    for kind in ("PNG", "JPEG", "WEBP"):
        shown = decode(encoded(colour, kind), size=20, channels=1).astype(int)
        theirs = hwc(Image.open(io.BytesIO(encoded(colour, kind))).convert("L"))
        assert shown.shape == (20, 20, 1)
        assert np.abs(shown - theirs).max() <= 2
        shown = decode(encoded(grey, kind, **({"lossless": True} if kind == "WEBP" else {})), size=20)
        np.testing.assert_array_equal(shown, shown[..., :1].repeat(3, axis=-1))


def test_unusual_files_are_read_too() -> None:
    deep = Image.fromarray((np.arange(400, dtype=np.uint16) * 160).reshape(20, 20))
    assert decode(encoded(deep, "PNG"), size=20, channels=1)[19, 19, 0] == round(399 * 160 * 255 / 65535)
    palette = gradient(20, 20).quantize(16)
    np.testing.assert_array_equal(decode(encoded(palette, "PNG"), size=20), hwc(palette.convert("RGB")))
    four_colours = gradient(20, 20).convert("CMYK")
    assert decode(encoded(four_colours, "JPEG"), size=20).shape == (20, 20, 3)


@given(st.integers(8, 90), st.integers(8, 90), st.integers(4, 64))
@settings(max_examples=60, deadline=None)
def test_resizing_is_torchvisions_resize_and_centre_crop(height: int, width: int, size: int) -> None:
    pixels = hwc(gradient(width, height))
    planes = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    theirs = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size)])(planes)
    np.testing.assert_array_equal(resize_to_square(pixels, size), theirs.permute(1, 2, 0))


@given(st.integers(8, 90), st.integers(8, 90), st.integers(4, 64))
@settings(max_examples=60, deadline=None)
def test_bicubic_resizing_is_torchvisions(height: int, width: int, size: int) -> None:
    pixels = hwc(gradient(width, height))
    planes = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    theirs = v2.functional.resize(planes, [size, size], v2.InterpolationMode.BICUBIC, antialias=True)
    np.testing.assert_array_equal(resize(pixels, size, size, "bicubic"), theirs.permute(1, 2, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_crop_is_scaled_with_its_interpolation(kind: str) -> None:
    image = gradient(60, 50).effect_spread(4)
    data, crop = encoded(image, kind, **({"quality": 95} if kind == "JPEG" else {})), Crop(0.7, 1.2, 0.4, 0.6)
    top, left, height, width = crop.box(50, 60)
    box = Image.open(io.BytesIO(data)).crop((left, top, left + width, top + height))
    bicubic = decode(data, size=40, crop=replace(crop, interpolation="bicubic")).astype(int)
    theirs = hwc(box.resize((40, 40), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(bicubic - theirs).max() <= 1
    assert np.abs(bicubic - decode(data, size=40, crop=crop)).max() > 3  # bilinear is another image


def test_a_square_is_scaled_whole_as_pil_scales_it() -> None:
    image = gradient(72, 72)
    theirs = hwc(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(decode(encoded(image, "PNG"), size=64).astype(int) - theirs).max() <= 1


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
    np.testing.assert_array_equal(shown, hwc(image)[32:, :32])


@pytest.mark.parametrize("crop", [Crop(1.0, 1.0, 0.0, 0.0), Crop(0.5, 1.5, 0.7, 0.3), Crop(0.3, 0.6, 0.0, 0.9)])
def test_cheap_decoding_of_large_photographs_shows_the_same(crop: Crop) -> None:
    """A JPEG decoded at a fraction of its size differs from a PNG of it by a few levels."""
    image = gradient(640, 481)
    from_jpeg = decode(encoded(image, "JPEG", quality=98), size=64, crop=crop).astype(int)
    from_png = decode(encoded(image, "PNG"), size=64, crop=crop).astype(int)
    assert np.abs(from_jpeg - from_png).mean() < 1.5


@given(
    st.integers(8, 150),
    st.integers(8, 150),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0", "4:1:1"]),
    st.sampled_from([{}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}, {"progressive": True}]),
    st.sampled_from(["RGB", "L"]),
    st.sampled_from([1, 3]),
    st.builds(Crop, st.floats(0.01, 1), st.floats(0.5, 2), UNIT, UNIT),
)
@settings(max_examples=150, deadline=None)
def test_a_crop_of_a_jpeg_is_cut_out_of_the_whole_picture_to_the_bit(
    width: int, height: int, subsampling: str, options: dict[str, object], mode: str, channels: int, crop: Crop
) -> None:
    noisy = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noisy).convert(mode), "JPEG", subsampling=subsampling, **options)
    top, left, box_height, box_width = crop.box(height, width)
    size = 1 + min(box_height, box_width) // 2  # No scale below 1, which other tests look at, keeps so many pixels.
    whole = simplejpeg.decode_jpeg(data, "RGB")
    whole = whole if channels == 3 else np.asarray(Image.fromarray(whole).convert("L"))[..., None]
    cut = resize(whole[top : top + box_height, left : left + box_width], size, size)
    np.testing.assert_array_equal(decode(data, size=size, channels=channels, crop=crop), cut)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0", "4:1:1"])
def test_the_upper_rows_of_a_jpeg_are_those_of_the_whole_at_every_scale(factor: int, subsampling: str) -> None:
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (203, 170, 3), dtype=np.uint8))
    data = encoded(noisy, "JPEG", subsampling=subsampling)
    height, width = -(-203 // factor), -(-170 // factor)
    whole = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    frame = plain_frame(data)
    assert frame is not None
    assert frame[:2] == (203, 170)
    for rows in range(1, height + 1):
        upper = upper_rows(data, frame, rows, 3, factor)
        assert upper is not None
        assert rows <= len(upper) <= rows + 2
        np.testing.assert_array_equal(upper[:rows], whole[:rows])


def test_a_jpeg_cut_short_below_the_crop_is_refused_as_one_cut_short_in_it() -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noisy), "JPEG")
    upper_half = Crop(0.25, 1.0, 0.0, 0.0)
    assert decode(data, size=64, crop=upper_half).shape == (64, 64, 3)
    for share in (0.3, 0.5, 0.7, 0.9, 0.99):
        with pytest.raises(ValueError, match="truncated"):
            decode(data[: int(share * len(data))], size=64, crop=upper_half)


@pytest.mark.parametrize("stray", [b"stray", b"\xff\x00", b"\xff\x00" * 9, b"\0", b"\xff\xff\x00"])
@pytest.mark.parametrize("crop", [Crop(0.25, 1.0, 0.0, 0.0), Crop(1.0, 1.0, 0.0, 0.0), Crop(0.3, 2.0, 0.9, 0.5)])
def test_stray_bytes_in_a_jpeg_s_header_change_no_pixel_of_a_crop(crop: Crop, stray: bytes) -> None:
    """libjpeg-turbo has the same words for these, before it decodes anything, as for the rows below a crop."""
    sound = encoded(gradient(120, 90), "JPEG")
    segments = [sound.index(marker) for marker in (b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xda")]
    for place in [20, *segments]:
        data = sound[:place] + stray + sound[place:]
        for size in (20, 40):
            try:
                wanted = resize(cut_out(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), crop), size, size)
            except OSError:
                with pytest.raises(ValueError):
                    decode(data, size=size, crop=crop)
            else:
                np.testing.assert_array_equal(decode(data, size=size, crop=crop), wanted)


def cut_out(pixels: np.ndarray, crop: Crop) -> np.ndarray:
    top, left, height, width = crop.box(*pixels.shape[:2])
    return pixels[top : top + height, left : left + width]


def test_an_error_before_the_first_row_leaves_no_buffer_to_be_shown() -> None:
    """A file that libjpeg-turbo refuses with the words that it has for leftovers."""
    data = encoded(gradient(120, 90), "JPEG")
    place = data.index(b"\xff\xdb")
    frame = plain_frame(data)
    assert frame is not None
    stray = data[:place] + b"stray" + data[place:]
    assert plain_frame(stray) is None
    assert upper_rows(stray, frame._replace(offset=frame.offset + 5), 30, 3, 1) is None


def test_a_jpeg_with_changed_bytes_is_decoded_or_refused_and_never_ends_the_process() -> None:
    rng = np.random.default_rng(0)
    data = encoded(gradient(120, 90), "JPEG")
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        for place in rng.integers(0, rng.choice([24, 700, len(data)]), 3):
            changed[place] = rng.integers(0, 256)
        try:
            crop = Crop(rng.uniform(0.1, 1), 1.0, rng.uniform(0, 0.99), 0.5)
            assert decode(bytes(changed), size=24, crop=crop).shape == (24, 24, 3)
        except ValueError:
            refused += 1
    assert 100 < refused < 400


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("crop", [None, Crop(0.5, 1.0, 0.0, 0.0)])
def test_what_is_no_image_is_a_value_error(kind: str, crop: Crop | None) -> None:
    data = encoded(gradient(40, 40), kind)
    for broken in (data[: len(data) // 2], b"", b"no image at all"):
        with pytest.raises(ValueError):
            decode(broken, size=32, crop=crop)


@pytest.mark.parametrize("kind", ["RGB", "L", "RGBA", "P", "I;16"])
def test_a_png_with_a_changed_byte_is_refused_or_shown_as_the_contract_shows_it(kind: str) -> None:
    image = Image.new("I;16", (40, 40), 999) if kind == "I;16" else gradient(40, 40).convert(kind)
    data = encoded(image, "PNG")
    assert decode(data + b"more", size=20).shape == (20, 20, 3)
    refused = 0
    for place in np.random.default_rng(0).integers(0, len(data), 60):
        changed = bytearray(data)
        changed[place] ^= 16
        try:
            assert decode(bytes(changed), size=20).shape == (20, 20, 3)
        except ValueError:
            refused += 1
    assert refused > 30
    for length in (8, 20, len(data) // 2):
        with pytest.raises(ValueError):
            decode(data[:length], size=20)
