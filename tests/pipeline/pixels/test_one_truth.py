"""Sharding, training and the served model show the same pixels of every format and variant that is read."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.loading.decode import Crop, decode
from pipeline.loading.resize import resize, resize_to_square
from pipeline.pixels.decode import decode as decode_whole
from pipeline.pixels.formats import format_of
from pipeline.sharding.writing.images import examine, prepare_image

CROPS = [Crop(1.0, 1.0, 0.0, 0.0), Crop(0.4, 1.4, 0.0, 0.9), Crop(0.3, 0.7, 0.99, 0.1)]
SIZE = 24  # no scale below 1, which only JPEGs have, keeps so many pixels of a side


def expected(variant: Any, channels: int) -> NDArray[np.uint8]:
    if channels == 3:
        return variant.shown
    return (variant.shown.astype(np.float64) @ [0.299, 0.587, 0.114] + 0.5).astype(np.uint8)[..., None]


def assert_close(seen: NDArray[Any], wanted: NDArray[Any], levels: int) -> None:
    assert seen.shape == wanted.shape
    assert seen.dtype == np.uint8
    assert np.abs(seen.astype(int) - wanted.astype(int)).max() <= levels


@pytest.mark.parametrize("channels", [1, 3])
def test_every_reader_shows_the_pixels_of_the_contract(variant: Any, channels: int, served_file: ModuleType) -> None:
    wanted = expected(variant, channels)
    assert_close(decode_whole(variant.data, channels), wanted, variant.tolerance)
    served = served_file.decode(variant.data, channels).permute(1, 2, 0).numpy()
    assert_close(served, wanted, variant.tolerance)
    assert_close(decode(variant.data, size=SIZE, channels=channels), resize_to_square(wanted, SIZE), variant.tolerance)
    for crop in CROPS:
        top, left, height, width = crop.box(*wanted.shape[:2])
        cut = resize(wanted[top : top + height, left : left + width], SIZE, SIZE)
        assert_close(decode(variant.data, size=SIZE, channels=channels, crop=crop), cut, variant.tolerance)


def test_shards_show_the_pixels_of_the_contract_to_every_reader(variant: Any) -> None:
    stored = prepare_image(variant.data)
    assert (stored.data == variant.data) == variant.stays
    if variant.stays or stored.extension == "png":
        assert_close(decode_whole(stored.data), variant.shown, variant.tolerance)
    else:  # a JPEG of quality 95 of a JPEG
        assert np.abs(decode_whole(stored.data).astype(int) - variant.shown).mean() < 2
    # What is stored needs no knowledge of ours: it is stored again as it is, and strict decoders find no fault in it.
    assert prepare_image(stored.data).data == stored.data
    again = examine(stored.data)
    assert (again.variations, again.is_rotated, again.fault) == ((), False, None)


def test_every_variant_is_recognised_by_its_first_bytes(variant: Any) -> None:
    assert format_of(variant.data[:64]) is not None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_is_applied_in_every_format(kind: str, orientation: int, served_file: ModuleType) -> None:
    from encoded_variants import encoded, rgb  # type: ignore[import-not-found]
    from PIL import Image

    undone = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Image.Transpose that the tag undoes
    lying = Image.fromarray(rgb())
    lying = lying if orientation == 1 else lying.transpose(Image.Transpose(undone[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {
        "JPEG": {"quality": 98, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    data = encoded(lying, kind, exif=exif, **quality.get(kind, {}))
    for seen in (
        decode_whole(data),
        served_file.decode(data, 3).permute(1, 2, 0).numpy(),
        decode_whole(prepare_image(data).data),
    ):
        assert seen.shape == rgb().shape
        assert np.abs(seen.astype(int) - rgb()).mean() < 4
    crop = Crop(0.3, 1.0, 0.0, 0.99)
    top, left, height, width = crop.box(*rgb().shape[:2])
    cut = resize(rgb()[top : top + height, left : left + width], SIZE, SIZE)
    assert np.abs(decode(data, size=SIZE, crop=crop).astype(int) - cut).mean() < 6
