"""What is an image is stored, as it is if the loader reads it; what is not is told with its reason."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.loading.decode import decode
from pipeline.sharding.writing.images import Encoded, ImagesConfig, UnreadableError, prepare_image

Picture = Callable[..., bytes]


def pixels(stored: Encoded) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stored.data)))


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_the_loader_reads_is_stored_byte_for_byte(picture: Picture, kind: str, extension: str, mode: str) -> None:
    data = picture(1, kind, mode)
    stored = prepare_image(data)
    if not (kind == "WEBP" and mode == "L"):
        assert stored.data == data
    assert (stored.extension, stored.width, stored.height) == (extension, 12, 10)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "CMYK")],
)
def test_other_forms_become_plain_png(picture: Picture, kind: str, mode: str) -> None:
    stored = prepare_image(picture(1, kind, mode))
    image = Image.open(io.BytesIO(stored.data))
    assert (image.format, stored.extension) == ("PNG", "png")
    assert image.mode in ("RGB", "L")
    assert image.size == (12, 10)


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert pixels(prepare_image(buffer.getvalue())).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_sixteen_bits_become_eight() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16)).save(buffer, "PNG")
    assert pixels(prepare_image(buffer.getvalue())).tolist() == [[0, 128, 255]]


def test_a_photo_turned_by_its_exif_is_stored_upright(picture: Picture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture(1))).save(buffer, "JPEG", exif=exif, quality=95)
    stored = prepare_image(buffer.getvalue())
    assert (stored.extension, stored.width, stored.height) == ("jpg", 10, 12)
    assert Image.open(io.BytesIO(stored.data)).getexif().get(0x0112, 1) == 1


def test_a_cmyk_photo_becomes_rgb(picture: Picture) -> None:
    stored = prepare_image(picture(1, "JPEG", "CMYK"))
    assert Image.open(io.BytesIO(stored.data)).mode == "RGB"


def test_of_an_animation_the_first_frame_is_kept(picture: Picture) -> None:
    frames = [Image.open(io.BytesIO(picture(seed))) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    stored = prepare_image(buffer.getvalue())
    assert stored.extension == "png"
    assert (pixels(stored) == np.asarray(frames[0])).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_unreadable(picture: Picture, kind: str) -> None:
    data = picture(1, kind, size=(80, 60))
    for share in (0.2, 0.6, 0.95):
        with pytest.raises(UnreadableError) as caught:
            prepare_image(data[: int(len(data) * share)])
        assert "\n" not in str(caught.value)
        assert str(caught.value)


def test_reasons_are_told() -> None:
    with pytest.raises(UnreadableError, match=r"empty \(0 bytes\)"):
        prepare_image(b"")
    with pytest.raises(UnreadableError, match="not an image"):
        prepare_image(b"<html>404</html>")


def test_random_damage_never_raises_anything_else(picture: Picture) -> None:
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF"):
        whole = picture(3, kind, size=(40, 30))
        for _ in range(60):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(0, 256)
            with contextlib.suppress(UnreadableError):
                prepare_image(bytes(data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableError, match="pixels"):
        prepare_image(png_header(side, side))


def test_the_pixel_limit_is_the_config_s(picture: Picture) -> None:
    assert prepare_image(picture(1), ImagesConfig(max_pixels=120)).width == 12
    with pytest.raises(UnreadableError, match="12x10: 120 pixels, more than max_pixels=119"):
        prepare_image(picture(1), ImagesConfig(max_pixels=119))


SCENE = np.zeros((40, 64, 3), dtype=np.uint8)
SCENE[:20, :32] = (250, 20, 20)
SCENE[:20, 32:] = (20, 250, 20)
SCENE[20:, :32] = (20, 20, 250)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_seen_upright_by_the_loader(kind: str, orientation: int) -> None:
    """The scene is stored turned, as a camera does, with the EXIF tag that says how to turn it back."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes what the tag demands
    scene = Image.fromarray(SCENE)
    turned = scene.transpose(Image.Transpose(back[orientation])) if orientation > 1 else scene
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    turned.save(buffer, kind, exif=exif, quality=95)
    stored = prepare_image(buffer.getvalue())
    assert (stored.width, stored.height) == (64, 40)
    assert (stored.data == buffer.getvalue()) == (orientation == 1), "what is upright stays as it is"
    seen = decode(stored.data, size=64)
    expected = decode(as_png(SCENE), size=64)
    assert np.abs(seen.astype(int) - expected.astype(int)).mean() < 3


def as_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "reason"),
    [
        ("PNG", "RGBA", "transparent"),
        ("PNG", "1", "was 1"),
        ("JPEG", "CMYK", "was CMYK"),
        ("GIF", "P", "palette"),
        ("PNG", "I;16", "16 bit"),
    ],
)
def test_it_is_told_why_an_image_was_encoded_anew(picture: Picture, kind: str, mode: str, reason: str) -> None:
    data = picture(1, kind, "RGBA" if mode == "I;16" else mode) if mode != "I;16" else sixteen_bits()
    assert reason in prepare_image(data).changes
    assert prepare_image(picture(1)).changes == ()


def sixteen_bits() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(120, dtype=np.uint16).reshape(10, 12) * 500).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_cmyk_photo_keeps_its_colours(picture: Picture) -> None:
    buffer = io.BytesIO()
    Image.fromarray(SCENE).convert("CMYK").save(buffer, "JPEG", quality=95)
    seen = pixels(prepare_image(buffer.getvalue())).astype(int)
    assert np.abs(seen - SCENE).mean() < 8


def test_only_larger_images_are_scaled_and_only_other_formats_converted(picture: Picture) -> None:
    small, large = picture(1, "PNG", size=(60, 40)), picture(1, "PNG", size=(120, 80))
    config = ImagesConfig(max_side=64)
    assert prepare_image(small, config).data == small
    scaled = prepare_image(large, config)
    assert (scaled.width, scaled.height, scaled.changes) == (64, 43, ("scaled",))
    webp = picture(1, "WEBP")
    assert prepare_image(webp, ImagesConfig(encoding="webp")).data == webp
    for name, extension in (("jpeg", "jpg"), ("webp", "webp"), ("png", "png")):
        made = prepare_image(picture(1, "GIF", "P"), ImagesConfig(encoding=name))
        assert made.extension == extension
        assert f"made {name}" in made.changes
        assert Image.open(io.BytesIO(made.data)).format == name.upper()


def test_quality_says_how_much_is_kept(picture: Picture) -> None:
    data = picture(1, size=(80, 80))
    sizes = [len(prepare_image(data, ImagesConfig(encoding="jpeg", quality=quality)).data) for quality in (10, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


def test_the_same_bytes_and_config_give_the_same_bytes(picture: Picture) -> None:
    for config in (ImagesConfig(), ImagesConfig(max_side=8, encoding="webp")):
        assert prepare_image(picture(1, "TIFF"), config, with_difference_hash=True) == prepare_image(
            picture(1, "TIFF"), config, with_difference_hash=True
        )


def test_how_an_image_looks_hardly_depends_on_size_and_format() -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize(
        (300, 240), Image.Resampling.BICUBIC
    )
    looks = []
    for kind, size, options in (
        ("PNG", (300, 240), {}),
        ("JPEG", (300, 240), {"quality": 60}),
        ("WEBP", (150, 120), {}),
    ):
        buffer = io.BytesIO()
        smooth.resize(size).save(buffer, kind, **options)
        looks.append(prepare_image(buffer.getvalue(), with_difference_hash=True).difference_hash)
    assert all((looks[0] ^ look).bit_count() <= 3 for look in looks)
    mirrored = io.BytesIO()
    ImageOps.mirror(smooth).save(mirrored, "PNG")
    assert (looks[0] ^ prepare_image(mirrored.getvalue(), with_difference_hash=True).difference_hash).bit_count() > 20
