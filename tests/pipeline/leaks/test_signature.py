"""Signatures match copies of an image, and do not match other images."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipeline.leaks.bounds import LeakCheckConfig
from pipeline.leaks.signature import SIGNATURE, State, difference, image_signature

Photo = Callable[..., Image.Image]
Encode = Callable[..., bytes]
Change = Callable[[Image.Image], Image.Image]


def shifted(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    return Image.fromarray(np.concatenate([pixels[:, :1], pixels[:, :-1]], axis=1))


def as_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return Image.open(buffer).convert("RGB")


def signatures(images: list[bytes]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return np.array([image_signature(data) for data in images], dtype=SIGNATURE)


def found(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    config = LeakCheckConfig()
    near = np.bitwise_count(one["hash"] ^ other["hash"]) <= config.near_radius
    return near & (difference(one, other, config.near_difference) <= 1)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(as_jpeg, id="JPEG of quality 70"),
        pytest.param(lambda image: image.resize((144, 144), Image.Resampling.LANCZOS), id="0.9 times the size"),
        pytest.param(lambda image: image.resize((320, 320), Image.Resampling.BICUBIC), id="twice the size"),
        pytest.param(lambda image: ImageEnhance.Brightness(image).enhance(1.1), id="1.1 times the brightness"),
        pytest.param(shifted, id="shifted by a pixel"),
    ],
)
def test_a_copy_is_recognised(change: Change, photo: Photo, encode: Encode) -> None:
    images = [photo(number) for number in range(10)]
    assert found(
        signatures([encode(image) for image in images]), signatures([encode(change(image)) for image in images])
    ).all()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), id="mirrored"),
        pytest.param(lambda image: Image.merge("RGB", image.split()[::-1]), id="red and blue exchanged"),
        pytest.param(lambda image: image.crop((16, 16, 144, 144)), id="cropped by a tenth at each side"),
    ],
)
def test_another_picture_is_not_taken_for_it(change: Change, photo: Photo, encode: Encode) -> None:
    images = [photo(number) for number in range(10)]
    changed = signatures([encode(change(image)) for image in images])
    assert not found(signatures([encode(image) for image in images]), changed).any()


def test_equal_pixels_are_equal_in_any_lossless_file(photo: Photo, encode: Encode) -> None:
    jpeg = encode(photo(1), "JPEG", quality=80)
    decoded = Image.open(io.BytesIO(jpeg)).convert("RGB")
    grey = decoded.convert("L")
    files = [jpeg, encode(decoded), encode(decoded, compress_level=1), encode(decoded, "WEBP", lossless=True)]
    assert len({image_signature(data)["pixels"].tobytes() for data in files}) == 1
    assert (
        image_signature(encode(grey))["pixels"].tobytes()
        == image_signature(encode(grey.convert("RGB")))["pixels"].tobytes()
    )
    # The same bytes of pixels in another shape are another picture.
    tall, wide = (Image.new("RGB", size, "red") for size in ((2, 8), (8, 2)))
    assert image_signature(encode(tall))["pixels"].tobytes() != image_signature(encode(wide))["pixels"].tobytes()


def test_one_colour_is_nothing_to_recognise_an_image_by(photo: Photo, encode: Encode) -> None:
    noisy = np.random.default_rng(0).integers(126, 130, (40, 40, 3), dtype=np.uint8)
    assert image_signature(encode(Image.new("RGB", (40, 40), "white")))["state"] == State.FLAT
    assert image_signature(encode(Image.fromarray(noisy)))["state"] == State.FLAT
    assert image_signature(encode(photo(1)))["state"] == State.COMPARABLE


def test_what_is_no_image_is_refused_in_one_line(photo: Photo, encode: Encode) -> None:
    whole = encode(photo(1), "JPEG", quality=90)
    for data in (b"", b"no image", whole[: len(whole) // 2]):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            image_signature(data)


def test_the_difference_is_one_minus_the_correlation(photo: Photo, encode: Encode) -> None:
    one, other = (signatures([encode(photo(number)) for number in range(start, start + 9)]) for start in (0, 100))
    other["colour"] = one["colour"]
    expected = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(one["grey"], other["grey"], strict=True)]
    np.testing.assert_allclose(difference(one, other, 0.01), np.array(expected) / 0.01, rtol=1e-5)
    other["grey"] = one["grey"]
    other["colour"][:, 3] ^= 8  # 8 levels more or less, of 16 that are allowed
    np.testing.assert_allclose(difference(one, other, 0.01), 0.5, rtol=1e-5)
